"""Tells by the names of files which to look into for audio, and which are hidden."""

from __future__ import annotations

from unfused_ray import storage

_OTHER_SUFFIXES = (
    ".txt", ".md", ".rst", ".json", ".jsonl", ".yaml", ".yml", ".toml", ".xml", ".html", ".pdf", ".py", ".sh", ".csv",
    ".tsv", ".xlsx", ".xls", ".lst", ".list", ".scp", ".lab", ".textgrid", ".jams", ".srt", ".vtt", ".mid", ".midi",
    ".jpg", ".jpeg", ".png", ".gif", ".webp", ".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst",
    ".7z", ".rar", ".npy", ".npz", ".pt", ".h5", ".hdf5", ".arrow", ".feather", ".pkl", ".log", ".cls", ".license",
)  # fmt: skip
"""Suffixes of files that are not looked into, in lower case."""


def suffix(uri: str) -> str:
    """Return the suffix of a file's name with its dot, in lower case; "" if it has none."""
    name = storage.name(uri)
    return f".{name.rpartition('.')[2].lower()}" if "." in name else ""


def is_worth_a_look(uri: str) -> bool:
    """True for a file whose suffix does not say what it holds."""
    return suffix(uri) not in _OTHER_SUFFIXES


def hidden_as(path: str) -> str:
    """Return what kind of hidden file a path within a source is, which nobody means as audio; "" if it is none."""
    folders, _, name = path.rpartition("/")
    if name.startswith("._") or "__MACOSX" in folders.split("/"):
        return "._* of macOS"
    if name == ".DS_Store":
        return name
    return "hidden files" if any(part.startswith(".") and part.strip(".") for part in path.split("/")) else ""
