"""The package in parts: a core that loads and embeds, and extras that ``pip install 'unfused-ray[NAME]'`` adds."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

_FAISS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12")


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


def package_version(name: str) -> str:
    """Version of a package; '' if it is not installed, as this one is not in a submitted working directory."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def installed_faiss() -> dict[str, str]:
    """Return the distributions of the module ``faiss`` that are installed, with their versions.

    More than one is a fault: each has written its files over the other's.
    """
    return {name: found for name in _FAISS if (found := package_version(name))}
