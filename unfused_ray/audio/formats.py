"""Recognises audio files by content and by name."""

from __future__ import annotations

import re

from unfused_ray.audio import mpeg
from unfused_ray.audio.window import Window

SUFFIXES = (
    *(".wav", ".wave", ".bwf", ".rf64", ".w64", ".aif", ".aiff", ".aifc", ".caf", ".au", ".snd", ".sph", ".nist"),
    *(".voc", ".svx", ".avr", ".flac", ".ogg", ".oga", ".opus", ".spx", ".mp3", ".mp2", ".mpga", ".m4a", ".m4b"),
    *(".mp4", ".m4v", ".mov", ".aac", ".adts", ".3gp", ".3g2", ".amr", ".awb", ".webm", ".mka", ".mkv", ".wma", ".wmv"),
    *(".mpg", ".mpeg", ".vob", ".ts", ".mts", ".m2ts"),
    *(".asf", ".avi", ".flv", ".ac3", ".eac3", ".dts", ".ape", ".wv", ".tta", ".mpc", ".dsf", ".dff", ".ra", ".rm"),
)
"""Suffixes of audio files, and of video files that hold audio, in lower case."""

FIRST_BYTES = 1 << 14
"""Number of bytes at the beginning of a file that suffice to recognise it."""

_MAGIC = {
    b"riff\x2e\x91\xcf\x11": "w64",
    b"caff\x00\x01": "caf",
    b".snd\x00": "au",
    b"fLaC": "flac",
    b"OggS\x00": "ogg",
    b"\x1a\x45\xdf\xa3": "matroska",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "asf",
    b"\x00\x00\x01\xba": "mpeg",
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
    b".RMF\0\0\0": "rm",  # RealMedia
    b".ra\xfd\0": "rm",
}
_MAGIC_BYTES = 2048  # enough for eight packets of a transport stream
_TRANSPORT = ((0, 188), (4, 192))
"""Places where packets of an MPEG transport stream may begin, each with the byte 0x47, and the packets' size."""
_UNMISTAKABLE = re.compile(
    rb"RIFF....(?:WAVE|AVI )|FORM....AIF[FC]|fLaC\0\0\0\x22|OggS\0\x02|caff\0\x01\0\0|\0\0..ftyp|#!AMR(?:-WB)?\n"
    rb"|riff\x2e\x91\xcf\x11|\.snd\0\0|TTA1[\x01\x03]\0|FLV\x01[\x01\x04\x05]\0\0\0\x09|\0\0\x01\xba[\x21\x44]\0"
    rb"|ID3[\x02-\x04]\0.[\0-\x7f]{4}|\x30\x26\xb2\x75\x8e\x66\xcf\x11|\x1a\x45\xdf\xa3.{1,8}\x42\x86\x81\x01",
    re.DOTALL,
)
_FORMS = {b"WAVE": "wav", b"AVI ": "avi", b"AIFF": "aiff", b"AIFC": "aiff"}
_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_STAND_INS = {
    b"version https://git-lfs": "it is a pointer of Git LFS: fetch its file by git lfs pull",
    b"/annex/objects/": "it is a pointer of git-annex: fetch its file by git annex get",
    b"\x1f\x8b": "it is packed by gzip: unpack it",
    b"\x28\xb5\x2f\xfd": "it is packed by Zstandard: unpack it",
    b"BZh": "it is packed by bzip2: unpack it",
    b"\xfd7zXZ\0": "it is packed by xz: unpack it",
    b"PK\x03\x04": "it is a zip archive: unpack it",
}
"""Beginnings of files that stand for another file under its name, and how to get that file."""
_PICTURES = (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis")


def begins_as_audio(first_bytes: bytes) -> bool:
    """Tell whether a file is worth decoding, by up to ``FIRST_BYTES`` of its beginning."""
    return first_bytes.startswith(b"ID3") or by_magic(first_bytes) is not None or mpeg.find(first_bytes) is not None


def stand_in(head: bytes) -> str:
    """Describe a file that only stands for another, by its first bytes, and how to get that one; "" if it is not
    known."""
    return next((remedy for begin, remedy in _STAND_INS.items() if head.startswith(begin)), "")


def recognise(window: Window) -> tuple[str | None, int]:
    """Return FFmpeg's name of the format, recognised by content (None if unknown), and the place where the tags end."""
    place = mpeg.after_tags(window)
    head = window.read_at(place, _MAGIC_BYTES)
    if (name := by_magic(head)) is not None:
        return name, place
    frame = mpeg.find(head + window.read_at(place + len(head), mpeg.LONGEST_SEARCH))
    return None if frame is None else frame.format, place


def is_file_at(window: Window, place: int) -> bool:
    """Tell whether an audio file of a known format, or the tags before such a file, begin at ``place``."""
    if place >= window.size:
        return False
    head = window.read_at(place, _MAGIC_BYTES)
    if head.startswith(mpeg.TAGS):
        place = mpeg.after_tags(window, place)
        head = window.read_at(place, _MAGIC_BYTES)
    if by_magic(head) is not None:
        return True
    return head[:1] in (b"\xff", b"\x0b") and mpeg.find(window.read_at(place, FIRST_BYTES), search=0) is not None


def find_behind_flac(window: Window, begin: int, end: int) -> int | None:
    """Return where another file begins between two places, the first of which may be within FLAC frames."""
    data = window.read_at(begin, end - begin)
    for found in _UNMISTAKABLE.finditer(data):
        if is_file_at(window, begin + found.start()):
            return begin + found.start()
    for sync in mpeg.UNLIKE_FLAC:
        # Among the ends of 4,000 FLAC files, one looks like a frame of MPEG audio that ends where the file does.
        if (frame := mpeg.find(data, len(data), sync, may_be_alone=False)) is not None:
            return begin + frame.place
    return None


def is_tag_to_the_end(window: Window, begin: int, end: int) -> bool:
    """Tell whether a tag begins between two places and ends where the file does."""
    tags = re.finditer(rb"ID3[\x02-\x04]\0|APETAGEX", window.read_at(begin, end - begin))
    return any(mpeg.after_tags(window, begin + tag.start()) >= window.size for tag in tags)


def by_magic(head: bytes) -> str | None:
    """Return FFmpeg's name of the format whose magic number, of four or more bytes, begins ``head``; or None."""
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM"):
        return _FORMS.get(head[8:12])
    if head[4:8] in _ATOMS:
        return None if head[8:12] in _PICTURES else "mov"
    if head.startswith(tuple(_MAGIC)):
        return next(name for magic, name in _MAGIC.items() if head.startswith(magic))
    return None if transport_packets(head) is None else "mpegts"


def transport_packets(head: bytes) -> tuple[int, int] | None:
    """Return the first byte and the size of an MPEG transport stream's packets; None if ``head`` is not from one."""
    for first, size in _TRANSPORT:
        begins = head[first : first + 8 * size : size]
        if len(begins) >= 3 and set(begins) == {0x47}:
            return first, size
    return None
