"""The package in parts: a core that loads and embeds, and extras that ``pip install 'unfused-ray[NAME]'`` adds."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

_FAISS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12")


class MissingExtraError(ImportError):
    """An extra of the package is not installed."""


def require(extra: str, module: str, use: str) -> None:
    """Refuse work that needs an extra which is not installed.

    Args:
        extra: name of the extra in ``pyproject.toml``.
        module: a module that comes with it.
        use: the work that needs it, for the message.

    Raises:
        MissingExtraError: the extra is missing; names the module, and the command that installs it.
    """
    if find_spec(module) is None:
        raise MissingExtraError(f"{use} needs {module}, which is not installed: pip install 'unfused-ray[{extra}]'")


def package_version(name: str) -> str:
    """Return the version of a package; '' if it is not installed, like this one in a submitted working directory."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def installed_faiss() -> dict[str, str]:
    """Return the installed distributions of the module ``faiss``, with their versions.

    More than one is a fault, because each has overwritten the other's files.
    """
    return {name: found for name in _FAISS if (found := package_version(name))}
