"""Downloads and unpacks Debian packages, without installing anything."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from unfused_ray.progress import terminal

AUDIO_SUFFIXES = (".ogg", ".wav", ".flac", ".aiff", ".aif", ".oga", ".opus", ".mp3")
PROGRAMS = {
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "espeak-ng": "espeak-ng",
    "festival": "festival festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts",
    "flite": "flite",
    "fluidsynth": "fluidsynth",
}
"""Debian package of each program that a task may run."""
_LISTS = Path(__file__).parent / "package_lists"
_DOWNLOADS_AT_ONCE = 4


@dataclass(frozen=True)
class Package:
    """A package of the lists."""

    name: str
    taken: str
    """Description of the files taken from it."""
    licence: str
    """Licence of the files taken, in one line, as read from the package's copyright file."""


class Packages:
    """Folders of unpacked packages, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, name: str) -> Path:
        """Return the folder of a package's contents, as in ``packages[name] / "usr/share"``."""
        return self.folder / name

    def version(self, name: str) -> str:
        """Return the version of an unpacked package."""
        fields = self.fields(name)
        return fields["Version"]

    def fields(self, name: str) -> dict[str, str]:
        """Return the one-line fields of a package's control file."""
        lines = (self[name] / "DEBIAN/control").read_text("utf-8").splitlines()
        return dict(line.split(": ", 1) for line in lines if ": " in line and not line.startswith(" "))

    def has(self, name: str) -> bool:
        """Return True if a package is unpacked here."""
        return (self[name] / "DEBIAN/control").is_file()


def package_lists() -> dict[str, Package]:
    """Read all packages of the lists, by name."""
    found: dict[str, Package] = {}
    for path in sorted(_LISTS.glob("*.toml")):
        for entry in tomllib.loads(path.read_text("utf-8"))["package"]:
            if entry["name"] in found:
                raise ValueError(f"{path.name}: package {entry['name']} is listed twice")
            found[entry["name"]] = Package(**entry)
    return found


def need_programs(programs: Iterable[str]) -> None:
    """Raise ValueError if programs are missing, with the command that installs them."""
    missing = sorted({name for name in programs if shutil.which(name) is None})
    if missing:
        packages = " ".join(PROGRAMS[name] for name in missing)
        raise ValueError(
            f"programs are missing: {', '.join(missing)}; install them by: apt-get install -y {packages} "
            "(on a system without apt, use corpus/Containerfile)"
        )


def fetch(names: Iterable[str], folder: Path) -> Packages:
    """Download and unpack the packages that ``folder`` lacks.

    Raises:
        ValueError: apt has no such package, or cannot reach its archive.
    """
    packages = Packages(folder)
    missing = [name for name in sorted(set(names)) if not packages.has(name)]
    if missing:
        need_programs(("apt-get", "dpkg-deb"))
        folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
            for name in pool.map(lambda name: _fetch(name, folder), missing):
                terminal().print(f"unpacked {name} {packages.version(name)}", highlight=False)
    return packages


def _fetch(name: str, folder: Path) -> str:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as temporary:
        try:
            run_program(["apt-get", "download", name], folder=Path(temporary))
        except RuntimeError as error:
            raise ValueError(f"package {name} cannot be downloaded: {error}; try apt-get update") from error
        deb = next(Path(temporary).glob("*.deb"))
        contents = Path(temporary, "contents")
        run_program(["dpkg-deb", "--raw-extract", deb, contents])
        shutil.rmtree(folder / name, ignore_errors=True)
        contents.rename(folder / name)
    return name


def run_program(command: Sequence[str | Path], folder: Path | None = None, text: str = "") -> bytes:
    """Run a program and return its output.

    Args:
        command: the program and its arguments.
        folder: working folder.
        text: standard input.

    Raises:
        RuntimeError: the program failed; quotes the end of its output.
    """
    done = subprocess.run([str(part) for part in command], input=text.encode(), capture_output=True, cwd=folder)
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()[-400:]
        raise RuntimeError(f"{command[0]} ended with code {done.returncode}: {words}")
    return done.stdout


def audio_files(folder: Path) -> list[Path]:
    """List the audio files below a folder, sorted, without symbolic links."""
    return [path for path in _files(folder) if path.suffix.lower() in AUDIO_SUFFIXES]


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())


def copyright_files(packages: Packages, names: Iterable[str]) -> Mapping[str, list[Path]]:
    """List the copyright files of packages, by name of the package."""
    return {name: sorted((packages[name] / "usr/share/doc").glob("*/copyright")) for name in sorted(set(names))}
