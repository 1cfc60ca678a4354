"""Recognises audio files by their content, and by their names."""

from __future__ import annotations

from unfused_ray.audio import mpeg
from unfused_ray.audio.window import Window

SUFFIXES = (
    *(".wav", ".wave", ".bwf", ".rf64", ".w64", ".aif", ".aiff", ".aifc", ".caf", ".au", ".snd", ".sph", ".nist"),
    *(".voc", ".svx", ".avr", ".flac", ".ogg", ".oga", ".opus", ".spx", ".mp3", ".mp2", ".mpga", ".m4a", ".m4b"),
    *(".mp4", ".m4v", ".mov", ".aac", ".adts", ".3gp", ".3g2", ".amr", ".awb", ".webm", ".mka", ".mkv", ".wma", ".wmv"),
    *(".asf", ".avi", ".flv", ".ac3", ".eac3", ".dts", ".ape", ".wv", ".tta", ".mpc", ".dsf", ".dff", ".ra", ".rm"),
)
"""Suffixes of audio files, and of video files that hold audio, in lower case."""

FIRST_BYTES = 4096
"""Bytes of a file's beginning that suffice to recognise it."""

_MAGIC = {
    b"riff\x2e\x91\xcf\x11": "w64",
    b"caff\x00\x01": "caf",
    b".snd\x00": "au",
    b"fLaC": "flac",
    b"OggS\x00": "ogg",
    b"\x1a\x45\xdf\xa3": "matroska",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "asf",
    b"#!AMR": "amr",
    b"FLV\x01": "flv",
    b"NIST_1A\n": "nistsphere",
    b"Creative Voice File\x1a": "voc",
    b"\x7f\xfe\x80\x01": "dts",
    b"MAC \x96\x0f": "ape",
    b"wvpk": "wv",
    b"TTA1": "tta",
    b"MPCK": "mpc8",
    b"MP+": "mpc",
    b"DSD \x1c\x00": "dsf",
    b"FRM8": "iff",  # DSDIFF
}
_FORMS = {b"WAVE": "wav", b"AVI ": "avi", b"AIFF": "aiff", b"AIFC": "aiff"}
_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_PICTURES = (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis")


def begins_as_audio(first_bytes: bytes) -> bool:
    """Tell whether a file is worth decoding by its beginning, of up to ``FIRST_BYTES``."""
    return first_bytes.startswith(b"ID3") or by_magic(first_bytes) is not None or mpeg.find(first_bytes) is not None


def recognise(window: Window) -> str | None:
    """Return FFmpeg's name of the format by a file's content; None for one that is not known."""
    place = mpeg.after_tags(window)
    head = window.read_at(place, FIRST_BYTES)
    if (name := by_magic(head)) is not None:
        return name
    if head.startswith(b"\x0b\x77"):
        return "eac3"  # FFmpeg's decoder of E-AC-3 takes AC-3 as well
    if (frame := mpeg.find(head + window.read_at(place + len(head), mpeg.LONGEST_SEARCH))) is not None:
        return frame.format
    return None


def by_magic(head: bytes) -> str | None:
    """Return FFmpeg's name of the format whose magic number, of four bytes or more, begins ``head``; or None."""
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM"):
        return _FORMS.get(head[8:12])
    if head[4:8] in _ATOMS:
        return None if head[8:12] in _PICTURES else "mov"
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
