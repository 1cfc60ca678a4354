"""Decides by file names which files to inspect for audio, and which are hidden."""

from __future__ import annotations

from unfused_ray import storage
from unfused_ray.data.sources.splits import lists_held_out

PACKED = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
"""Suffixes of archives that are not read."""
_MAY_HOLD_CLIPS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".lst", ".list", ".scp", ".xlsx", ".xls", ".arrow", ".h5",
                   ".npz", ".tar", ".parquet", *PACKED)  # fmt: skip
"""Suffixes of files that may name or hold clips, whether they are read or not."""
_OTHER_SUFFIXES = (
    ".txt", ".md", ".rst", ".json", ".jsonl", ".yaml", ".yml", ".toml", ".xml", ".html", ".pdf", ".py", ".sh", ".csv",
    ".tsv", ".xlsx", ".xls", ".lst", ".list", ".scp", ".lab", ".textgrid", ".jams", ".srt", ".vtt", ".mid", ".midi",
    ".jpg", ".jpeg", ".png", ".gif", ".webp", *PACKED, ".npy", ".npz", ".pt",
    ".h5", ".hdf5", ".arrow", ".feather", ".pkl", ".log", ".cls", ".license",
)  # fmt: skip
"""Suffixes, in lower case, of files that are not inspected for audio."""


def suffix(uri: str) -> str:
    """Return the suffix of a file's name with its dot, in lower case; "" if it has none."""
    name = storage.name(uri)
    return f".{name.rpartition('.')[2].lower()}" if "." in name else ""


def is_worth_a_look(uri: str) -> bool:
    """Return True if the suffix of a file does not tell what it holds."""
    return suffix(uri) not in _OTHER_SUFFIXES


def may_hold_out(path: str) -> bool:
    """Return True if the name of an unread file says that it may list or hold clips that are held out."""
    ending = suffix(path)
    stem = storage.name(path)[: -len(ending) or None]
    return ending in _MAY_HOLD_CLIPS and lists_held_out(stem, is_text=ending in (".txt", ".json"))


def hidden_as(path: str) -> str:
    """Return the kind of hidden file that a path within a source names, which nobody means as audio; "" if visible."""
    folders, _, name = path.rpartition("/")
    if name.startswith("._") or "__MACOSX" in folders.split("/"):
        return "._* of macOS"
    if name == ".DS_Store":
        return name
    return "hidden files" if any(part.startswith(".") and part.strip(".") for part in path.split("/")) else ""
