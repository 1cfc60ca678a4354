"""Hooks of mkdocs.yml: reference pages that are generated, so that they cannot differ from the code."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from unfused_ray.cli import COMMANDS

PACKAGE = Path(__file__).parents[1] / "unfused_ray"
_ROOMS = "reference/rooms"
_ROOM = """# {room}

::: unfused_ray.{room}
    options:
      show_submodules: true
      show_root_heading: false
      show_root_toc_entry: false
      heading_level: 2
"""


def on_config(config: MkDocsConfig) -> None:
    """Add the rooms of the package to the navigation."""
    reference = next(entry["Reference"] for entry in config.nav or [] if "Reference" in entry)
    reference.append({"Rooms": [{room: f"{_ROOMS}/{room}.md"} for room in rooms()]})


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page per room."""
    for room in rooms():
        files.append(File.generated(config, f"{_ROOMS}/{room}.md", content=_ROOM.format(room=room)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put each command's ``--help`` in the place of the marker."""
    if "<!-- commands -->" not in markdown:
        return markdown
    return markdown.replace("<!-- commands -->", "\n".join(map(section, COMMANDS)))


def on_page_content(html: str, **_: Any) -> str:
    """Render the roles and literal blocks of docstrings, which Markdown does not know."""
    html = re.sub(r":(?:class|func|meth|mod|data|attr):<code>~?(?:unfused_ray\.[\w.]*\.)?", "<code>", html)
    return html.replace("::</p>", ":</p>")


def rooms() -> list[str]:
    """Packages and modules directly in the package, in order of their names; ``api`` has a page of its own."""
    found = [path.parent.name for path in PACKAGE.glob("*/__init__.py")]
    found += [path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")]
    return sorted({*found} - {"api"})


def section(command: str) -> str:
    """A command's ``--help``, as a terminal of 100 columns shows it."""
    output = io.StringIO()
    terminal = {"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}
    try:
        with redirect_stdout(output), mock.patch.dict("os.environ", terminal):
            import_module(f"unfused_ray.cli.{command}").run(["--help"])
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"unfused-ray {command} --help ended with {end.code}") from end
    text = output.getvalue().replace(str(Path.home()), "~").strip()
    return f"## {command}\n\n```text\n{text}\n```\n"
