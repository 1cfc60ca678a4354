"""Tells audio by the suffix of a file or by its first bytes, whether or not it can be decoded."""

from __future__ import annotations

from unfused_ray import storage

AUDIO_SUFFIXES = (
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".wave", ".m4a", ".aac", ".mp4", ".webm", ".aif", ".aiff",
    ".aifc", ".caf", ".w64", ".rf64", ".au", ".snd", ".amr", ".wma", ".wv", ".ape", ".tta", ".mka", ".mp2", ".ac3",
    ".m4b", ".3gp", ".spx", ".awb", ".voc", ".sph", ".nist", ".svx", ".avr",
)  # fmt: skip
"""Suffixes of audio files, in lower case."""

HEAD_BYTES = 16
"""First bytes of a file that :func:`is_audio` wants."""

_OTHER_SUFFIXES = (
    ".txt", ".md", ".rst", ".json", ".jsonl", ".yaml", ".yml", ".toml", ".xml", ".html", ".pdf", ".py", ".sh", ".csv",
    ".tsv", ".xlsx", ".xls", ".lst", ".list", ".scp", ".lab", ".textgrid", ".jams", ".srt", ".vtt", ".mid", ".midi",
    ".jpg", ".jpeg", ".png", ".gif", ".webp", ".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst",
    ".7z", ".rar", ".npy", ".npz", ".pt", ".h5", ".hdf5", ".arrow", ".feather", ".pkl", ".log", ".cls", ".license",
)  # fmt: skip
"""Suffixes of files that are not looked into, in lower case."""

_STARTS = (b"fLaC", b"OggS", b"ID3", b"caff", b".snd", b"dns.", b"#!AMR", b"\x1aE\xdf\xa3", b"wvpk", b"TTA1", b"MAC ",
           b"NIST_1A", b"Creative Voice", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"riff\x2e\x91\xcf\x11")  # fmt: skip
_IN_CHUNKS = {b"RIFF": (b"WAVE",), b"RIFX": (b"WAVE",), b"RF64": (b"WAVE",), b"FORM": (b"AIFF", b"AIFC", b"8SVX")}
_IMAGES = (b"heic", b"heix", b"mif1", b"avif", b"msf1")


def suffix(uri: str) -> str:
    """Return the suffix of a file's name with its dot, in lower case; "" if it has none."""
    name = storage.name(uri)
    return f".{name.rpartition('.')[2].lower()}" if "." in name else ""


def is_worth_a_look(uri: str) -> bool:
    """True for a file whose suffix does not say what it holds."""
    return suffix(uri) not in _OTHER_SUFFIXES


def is_audio(head: bytes) -> bool:
    """True if the first bytes of a file are those of an audio format."""
    if head.startswith(_STARTS) or head[8:12] in _IN_CHUNKS.get(head[:4], ()):
        return True
    if head[4:8] == b"ftyp":
        return head[8:12] not in _IMAGES
    return len(head) >= 4 and _is_mpeg(head)


def _is_mpeg(head: bytes) -> bool:
    """True for the header of an MPEG audio frame of layer II or III, or of AAC in ADTS."""
    if head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return False
    if head[1] & 0xF6 == 0xF0:
        return True
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    return version != 1 and layer in (1, 2) and head[2] >> 4 not in (0, 15) and head[2] >> 2 & 3 != 3


def hidden_as(path: str) -> str:
    """Return what kind of hidden file a path within a source is, which nobody means as audio; "" if it is none."""
    folders, _, name = path.rpartition("/")
    if name.startswith("._") or "__MACOSX" in folders.split("/"):
        return "._* of macOS"
    if name == ".DS_Store":
        return name
    return "hidden files" if any(part.startswith(".") and part.strip(".") for part in path.split("/")) else ""
