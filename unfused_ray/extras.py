"""The package in parts: a core that loads and embeds, and extras that ``pip install 'unfused-ray[NAME]'`` adds."""

from __future__ import annotations

from importlib.util import find_spec


class MissingExtraError(ImportError):
    """A part of the package is not installed."""


def require(extra: str, module: str, use: str) -> None:
    """Refuse what needs an extra that is not installed.

    Args:
        extra: its name in ``pyproject.toml``.
        module: one that comes with it.
        use: what needs it, for the message.

    Raises:
        MissingExtraError: names the module, and the command that installs it.
    """
    if find_spec(module) is None:
        raise MissingExtraError(f"{use} needs {module}, which is not installed: pip install 'unfused-ray[{extra}]'")
