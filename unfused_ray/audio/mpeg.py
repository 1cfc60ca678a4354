"""Finds frames of MPEG audio (MP1 to MP3), AAC (ADTS) and AC-3, which have no long magic number."""

from __future__ import annotations

import re
from typing import NamedTuple

from unfused_ray.audio.window import Window

TAGS = (b"ID3", b"APETAGEX", b"TAG")
"""First bytes of tags."""
LONGEST_SEARCH = 1 << 16
"""Largest number of bytes before the first frame, such as zeros or a tag of another kind."""
_SYNC = re.compile(rb"\xff[\xe0-\xff]|\x0b\x77")
UNLIKE_FLAC = re.compile(rb"\xff[\xe0-\xf7\xfa-\xff]"), re.compile(rb"\x0b\x77")
"""First bytes of frames that no FLAC frame begins with: equal FLAC frames, of silence, may be laid out like AAC frames.
They are searched one by one, which is faster."""
_CHAIN = 3  # frames that follow, each where the previous one says; by chance, two do in one of 10⁶ random files
_BIT_RATES = {  # in kbit/s, by (is MPEG 1, layer)
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_AC3_BIT_RATES = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


class Frame(NamedTuple):
    """The header of a frame."""

    format: str
    """FFmpeg's name: ``mp3`` (any layer), ``aac``, or ``eac3``, whose decoder also takes AC-3."""
    place: int
    num_bytes: int
    samples: int
    """Samples per channel."""
    rate: int
    tag: int
    """Place of the Xing or Info tag, if an MP3 frame has one, relative to the frame."""


def find(
    data: bytes, search: int = LONGEST_SEARCH, sync: re.Pattern[bytes] = _SYNC, may_be_alone: bool = True
) -> Frame | None:
    """Find the first frame, within the first ``search`` bytes, that is followed by others.

    Args:
        data: bytes of a file.
        search: number of bytes in which the frame must begin.
        sync: pattern of the two bytes that it may begin with.
        may_be_alone: accept the last frame, or the last but one, if the last ends exactly where ``data`` ends.
    """
    for found in sync.finditer(data, 0, search + 2):
        if (frame := _frame(data, found.start())) is not None and _is_followed(data, frame, may_be_alone):
            return frame
    return None


def after_tags(window: Window, place: int = 0) -> int:
    """Return the place after the tags (ID3v1, ID3v2 and APE) that begin at ``place``; it may be beyond the end."""
    while len(head := window.read_at(place, 32)) >= 10:
        if head[:3] == b"ID3":
            sizes = zip(head[6:10], (21, 14, 7, 0), strict=True)
            place += 10 + sum((byte & 127) << shift for byte, shift in sizes)
        elif head[:8] == b"APETAGEX":
            place += 32 + int.from_bytes(head[12:16], "little")
        elif head[:3] == b"TAG":
            place += 128
        else:
            break
    return place


def claimed_seconds(window: Window) -> float | None:
    """Return the length in seconds that the Xing, Info or VBRI tag of an MP3 file claims; None without such a tag."""
    place = after_tags(window)
    data = window.read_at(place, LONGEST_SEARCH)
    if (frame := find(data)) is None:
        return None
    content = data[frame.place : frame.place + frame.num_bytes]
    tag = content[frame.tag :]
    count = 0
    if tag[:4] in (b"Xing", b"Info") and tag[7:8] and tag[7] & 1:
        count = int.from_bytes(tag[8:12], "big")
    elif content[36:40] == b"VBRI":
        count = int.from_bytes(content[50:54], "big")
    return count * frame.samples / frame.rate if count else None


def _is_followed(data: bytes, frame: Frame, may_be_alone: bool) -> bool:
    for count in range(_CHAIN):
        place = frame.place + frame.num_bytes
        if place >= len(data):
            return count >= 2 or (may_be_alone and place == len(data))
        following = _frame(data, place)
        if following is None or (following.format, following.rate) != (frame.format, frame.rate):
            return False
        frame = following
    return True


def _frame(data: bytes, place: int) -> Frame | None:
    head = data[place : place + 6]
    if len(head) < 6 or _SYNC.match(head) is None:
        return None
    if head[0] == 0x0B:
        return _ac3(head, place)
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    if layer == 4:
        return _adts(head, place)
    bit_rate, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or not 0 < bit_rate < 15 or rate == 3:
        return None
    kbits = _BIT_RATES[version == 3, layer][bit_rate - 1]
    hertz = _RATES[version][rate]
    samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152
    slot = 4 if layer == 1 else 1
    num_bytes = (samples // 8 // slot * kbits * 1000 // hertz + (head[2] >> 1 & 1)) * slot
    is_mono = head[3] >> 6 == 3
    side = (17 if is_mono else 32) if version == 3 else (9 if is_mono else 17)
    return Frame("mp3", place, num_bytes, samples, hertz, 4 + side)


def _adts(head: bytes, place: int) -> Frame | None:
    rates = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
    rate, num_bytes = head[2] >> 2 & 15, (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    if head[1] & 0xF6 != 0xF0 or rate >= len(rates) or num_bytes < 7:
        return None
    return Frame("aac", place, num_bytes, 1024, rates[rate], 0)


def _ac3(head: bytes, place: int) -> Frame | None:
    """Read the header of an AC-3 frame or, from version 11 on, of an E-AC-3 frame."""
    code, version = head[4] >> 6, head[5] >> 3
    if version > 16 or (version <= 10 and (code == 3 or (head[4] & 63) >> 1 >= len(_AC3_BIT_RATES))):
        return None
    hertz = (48000, 44100, 32000)[code] if code < 3 else (24000, 22050, 16000)[(head[4] >> 4 & 3) % 3]
    if version > 10:
        return Frame("eac3", place, 2 * (((head[2] & 7) << 8 | head[3]) + 1), 1536, hertz, 0)
    kbits = _AC3_BIT_RATES[(head[4] & 63) >> 1]
    words = kbits * 96_000 // hertz + (head[4] & 1 if hertz == 44100 else 0)
    return Frame("eac3", place, 2 * words, 1536, hertz, 0)
