"""Audio files of many codecs, containers, headers and joins, made by PyAV and soundfile."""

from __future__ import annotations

import io
import struct
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
import soundfile

RATE = 44_100
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
LOSSY = 0.1
"""Most seconds that a lossy codec adds as padding, or loses at a join."""


class AudioFile(NamedTuple):
    """An audio file, the length of its sound in seconds, and the warnings that decoding it must give."""

    name: str
    data: bytes
    seconds: float
    padding: float
    """Seconds by which the decoded sound may be longer or shorter."""
    warnings: tuple[str, ...] = ()
    """Reasons of the expected warnings."""


class CountingFile(io.BytesIO):
    """A file in memory that counts the bytes read from it."""

    bytes_read = 0

    def readinto(self, buffer: object) -> int:
        count = super().readinto(buffer)  # type: ignore[arg-type]
        self.bytes_read += count
        return count


def tone(seconds: float, rate: int = RATE, channels: int = 1, pitch: float = 440.0) -> np.ndarray:
    """Return a swelling tone in a little noise, at another level in each channel: (samples, channels) float32."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(round(pitch)).normal(0, 0.01, time.size)
    wave = 0.3 * np.sin(2 * np.pi * pitch * time) * (0.6 + 0.4 * np.sin(3 * np.pi * time)) + noise
    return np.stack([wave / (1 + channel) for channel in range(channels)], axis=1).astype(np.float32)


def encoded(wave: np.ndarray, rate: int = RATE, container: str = "WAV", codec: str | None = None) -> bytes:
    """Encode with libsndfile."""
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format=container, subtype=codec)
    return buffer.getvalue()


def muxed(
    wave: np.ndarray, rate: int, container: str, codec: str, layout: str = "", kbits: int = 128, **options: str
) -> bytes:
    """Encode with FFmpeg; ``options`` are the container's."""
    layout = layout or LAYOUTS[wave.shape[1]]
    of_codec = {"strict": "experimental"} | ({"mapping_family": "255"} if layout == "octagonal" else {})
    with tempfile.NamedTemporaryFile() as place:
        with av.open(place.name, "w", format=container, container_options=options) as file:
            stream = file.add_stream(codec, rate=rate, layout=layout, options=of_codec)
            stream.bit_rate = 12_200 if "amr" in codec else 1000 * kbits
            frame = av.AudioFrame(format="flt", layout=layout, samples=len(wave))
            frame.planes[0].update(np.ascontiguousarray(wave))
            frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                file.mux(packet)
        return place.read()


def film(seconds: float, container: str, codec: str) -> bytes:
    """Encode a film: blank pictures and a tone."""
    rate = 48_000
    with tempfile.NamedTemporaryFile() as place:
        with av.open(place.name, "w", format=container) as file:
            pictures = file.add_stream("mpeg2video", rate=25)
            pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
            sound = file.add_stream(codec, rate=rate, layout="stereo")
            frames = [av.VideoFrame(64, 48, "yuv420p") for _ in range(round(25 * seconds))]
            for number, frame in enumerate(frames):
                frame.pts, frame.time_base = number, Fraction(1, 25)
            wave = av.AudioFrame(format="flt", layout="stereo", samples=round(seconds * rate))
            wave.planes[0].update(tone(seconds, rate, 2))
            wave.sample_rate, wave.pts, wave.time_base = rate, 0, Fraction(1, rate)
            packets = [packet for frame in (*frames, None) for packet in pictures.encode(frame)]
            packets += [*sound.encode(wave), *sound.encode(None)]
            for packet in sorted(packets, key=lambda packet: (packet.dts or 0) * (packet.time_base or 0)):
                file.mux(packet)
        return place.read()


CODECS = (
    # container, codec, rate, channels, padding
    *(("mp3", "libmp3lame", RATE, 2, LOSSY), ("mp3", "libmp3lame", 16_000, 1, LOSSY), ("mp2", "mp2", RATE, 2, LOSSY)),
    *(("adts", "aac", RATE, 2, LOSSY), ("ipod", "aac", RATE, 2, LOSSY), ("ipod", "alac", RATE, 2, 0.0)),
    *(("mp4", "aac", 48_000, 6, LOSSY), ("mp4", "aac", 48_000, 8, LOSSY), ("mp4", "libmp3lame", RATE, 1, LOSSY)),
    *(("mp4", "libopus", 48_000, 2, LOSSY), ("mp4", "flac", RATE, 2, 0.0), ("mp4", "ac3", 48_000, 2, LOSSY)),
    *(("mp4", "eac3", 48_000, 2, LOSSY), ("mov", "pcm_s16le", RATE, 2, 0.0), ("mov", "pcm_s24le", RATE, 1, 0.0)),
    *(("mov", "adpcm_ima_qt", RATE, 1, LOSSY), ("3gp", "aac", 16_000, 1, LOSSY)),
    *(("3gp", "libopencore_amrnb", 8_000, 1, LOSSY), ("amr", "libopencore_amrnb", 8_000, 1, LOSSY)),
    *(("webm", "libopus", 48_000, 2, LOSSY), ("webm", "vorbis", RATE, 2, LOSSY)),
    *(("matroska", "aac", RATE, 2, LOSSY), ("matroska", "flac", RATE, 2, 0.0), ("matroska", "pcm_s16le", RATE, 2, 0.0)),
    *(("matroska", "libmp3lame", 8_000, 1, 0.2), ("matroska", "alac", RATE, 2, 0.0), ("matroska", "tta", RATE, 2, 0.0)),
    *(("matroska", "wavpack", RATE, 2, 0.0), ("matroska", "ac3", 48_000, 2, LOSSY)),
    *(("ogg", "vorbis", RATE, 2, LOSSY), ("ogg", "libopus", 48_000, 2, LOSSY), ("oga", "flac", RATE, 2, 0.0)),
    *(("asf", "wmav2", RATE, 2, LOSSY), ("asf", "wmav1", RATE, 1, LOSSY), ("avi", "libmp3lame", RATE, 2, LOSSY)),
    *(("avi", "pcm_s16le", RATE, 2, 0.0), ("flv", "libmp3lame", RATE, 2, LOSSY), ("flv", "aac", RATE, 2, LOSSY)),
    *(("ac3", "ac3", 48_000, 2, LOSSY), ("eac3", "eac3", 48_000, 2, LOSSY), ("tta", "tta", RATE, 2, 0.0)),
    *(("wv", "wavpack", RATE, 2, 0.0), ("aiff", "pcm_s24be", RATE, 2, 0.0), ("au", "pcm_mulaw", 8_000, 1, 0.0)),
    *(("caf", "alac", RATE, 2, LOSSY), ("caf", "adpcm_ima_qt", RATE, 1, LOSSY), ("w64", "pcm_s16le", RATE, 2, 0.0)),
    *(("wav", "pcm_f32le", RATE, 2, 0.0), ("wav", "adpcm_ms", RATE, 1, LOSSY), ("wav", "libmp3lame", RATE, 2, LOSSY)),
    *(("wav", "g722", 16_000, 1, 0.0), ("wav", "ac3", 48_000, 2, LOSSY), ("flac", "flac", RATE, 2, 0.0)),
    *(("mpegts", "aac", RATE, 2, LOSSY), ("mpegts", "mp2", 48_000, 2, LOSSY), ("mpegts", "ac3", 48_000, 2, LOSSY)),
    *(("mpeg", "mp2", RATE, 2, LOSSY), ("vob", "ac3", 48_000, 2, LOSSY)),
    *(("rm", "ac3", RATE, 2, LOSSY), ("rm", "real_144", 8_000, 1, LOSSY)),
)
SNDFILE = (
    *(
        ("WAV", "PCM_U8"),
        ("WAV", "PCM_24"),
        ("WAV", "ULAW"),
        ("WAV", "IMA_ADPCM"),
        ("WAVEX", "PCM_32"),
        ("RF64", "PCM_16"),
    ),
    *(
        ("W64", "PCM_24"),
        ("AIFF", "PCM_16"),
        ("AIFF", "FLOAT"),
        ("CAF", "PCM_16"),
        ("CAF", "ALAC_16"),
        ("AU", "PCM_16"),
    ),
    *(
        ("NIST", "PCM_16"),
        ("VOC", "PCM_16"),
        ("IRCAM", "PCM_16"),
        ("FLAC", "PCM_24"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
    ),
    ("MP3", "MPEG_LAYER_III"),
)


def audio_files() -> Iterator[AudioFile]:
    """Yield all the files."""
    yield from of_each_codec()
    yield from of_odd_headers()
    yield from joined()
    yield from cut_short()


def of_each_codec() -> Iterator[AudioFile]:
    for container, codec, rate, channels, padding in CODECS:
        data = muxed(tone(1.5, rate, channels), rate, container, codec)
        yield AudioFile(f"{container}: {codec}, {rate / 1000:g} kHz, {LAYOUTS[channels]}", data, 1.5, padding)
    for container, codec in SNDFILE:
        rate = 48_000 if codec == "OPUS" else RATE
        padding = LOSSY if codec in ("IMA_ADPCM", "VORBIS", "OPUS", "MPEG_LAYER_III") else 0.0
        yield AudioFile(f"{container}: {codec}", encoded(tone(1.5, rate), rate, container, codec), 1.5, padding)
    wave = tone(1.5, RATE, 2)
    fragments = muxed(wave, RATE, "mp4", "aac", movflags="frag_keyframe+empty_moov", frag_duration="300000")
    yield AudioFile("mp4: aac, fragmented", fragments, 1.5, LOSSY)
    live = muxed(tone(1.5, 48_000), 48_000, "webm", "libopus", live="1")
    yield AudioFile("webm: libopus, live, without a length", live, 1.5, LOSSY)
    fast = muxed(wave, RATE, "ipod", "aac", movflags="faststart")
    yield AudioFile("ipod: aac, header first", fast, 1.5, LOSSY)
    blu_ray = muxed(wave, RATE, "mpegts", "aac", mpegts_m2ts_mode="1")
    yield AudioFile("mpegts: aac, packets of 192 bytes (M2TS)", blu_ray, 1.5, LOSSY)
    eight = np.random.default_rng(0).normal(0, 0.1, (72_000, 8)).astype(np.float32)
    opus = muxed(eight, 48_000, "ogg", "libopus", "octagonal", 700)
    yield AudioFile("ogg: libopus, eight channels", opus, 1.5, LOSSY)
    for container, codec in (("mpegts", "mp2"), ("vob", "mp2"), ("matroska", "ac3"), ("mp4", "aac")):
        yield AudioFile(f"{container}: {codec}, with pictures", film(1.5, container, codec), 1.5, LOSSY)


def put(data: bytes, place: int, code: str, value: int) -> bytes:
    """Replace a number in a header."""
    return data[:place] + struct.pack(code, value) + data[place + struct.calcsize(code) :]


def of_odd_headers() -> Iterator[AudioFile]:
    longer, short = ("longer than its header",), ("cut short",)
    wave = tone(1.5)
    wav, rf64, w64 = (encoded(wave, container=name, codec="PCM_16") for name in ("WAV", "RF64", "W64"))
    aiff, caf, au = (encoded(wave, container=name, codec="PCM_16") for name in ("AIFF", "CAF", "AU"))
    size = 2 * len(wave)
    headers = (
        # name, file, place and struct code of the size in its header, right size
        *(("WAV", wav, 40, "<I", size), ("RF64", rf64, 28, "<Q", size), ("W64", w64, 96, "<Q", size + 24)),
        *(("AIFF", aiff, 42, ">I", size + 8), ("CAF", caf, 4084, ">Q", size + 4), ("AU", au, 8, ">I", size)),
    )
    for name, data, place, code, right in headers:
        assert struct.unpack_from(code, data, place) == (right,)
        unknown = 256 ** struct.calcsize(code) - 1
        yield AudioFile(f"{name}, size 0 (a recorder that crashed)", put(data, place, code, 0), 1.5, 0.0, longer)
        yield AudioFile(f"{name}, size -1 (a pipe)", put(data, place, code, unknown), 1.5, 0.0)
        yield AudioFile(f"{name}, size of the first half", put(data, place, code, right // 4 * 2), 1.5, 0.001, longer)
        yield AudioFile(f"{name}, twice its size", put(data, place, code, 2 * right), 1.5, 0.0, short)
    yield AudioFile("WAV, size 2³¹ - 1", put(wav, 40, "<I", 2**31 - 1), 1.5, 0.0)
    yield AudioFile("WAV, size 0 in RIFF and data", put(put(wav, 40, "<I", 0), 4, "<I", 0), 1.5, 0.0, longer)
    listed = wav[:36] + b"LIST" + struct.pack("<I", 15) + b"INFOISFT\3\0\0\0abc" + wav[36:]
    yield AudioFile("WAV, chunk of odd size not padded", listed, 1.5, 0.0)
    odd = put(wav, 16, "<I", 17)
    yield AudioFile("WAV, first chunk of odd size not padded", odd[:36] + b"\0" + odd[36:], 1.5, 0.0)
    tag = b"ID3\4\0\0\0\1\0\0" + bytes(1 << 14)
    yield AudioFile("WAV, two chunks of samples", wav + wav[36:], 3.0, 0.0, ("joined",))
    yield AudioFile("AIFF, two chunks of samples", aiff + aiff[38:], 1.5, 0.0, short)
    yield from with_unknown_bytes()
    for container, codec in (
        *(("wav", "pcm_s16le"), ("aiff", "pcm_s16be"), ("caf", "pcm_s16le"), ("w64", "pcm_s16le"), ("au", "pcm_s16be")),
        *(("ipod", "aac"), ("ogg", "libopus"), ("matroska", "flac"), ("avi", "pcm_s16le"), ("flv", "aac")),
        *(("adts", "aac"), ("mpegts", "aac"), ("ac3", "ac3")),
    ):
        data = tag + muxed(tone(1.5, 48_000, 2), 48_000, container, codec)
        padding = 0.0 if codec.startswith(("pcm", "flac")) else LOSSY
        yield AudioFile(f"{container}: {codec}, ID3 tag first", data, 1.5, padding)
    yield AudioFile("WAV, ID3 tag at its end", wav + tag, 1.5, 0.0)
    flac = encoded(wave, container="FLAC")
    yield AudioFile("FLAC, ID3 tag first", tag + flac, 1.5, 0.0)
    no_length = put(put(flac, 22, ">I", 0), 21, ">B", flac[21] & 0xF0)
    yield AudioFile("FLAC, without a length (a pipe)", no_length, 1.5, 0.0)
    mp3 = encoded(wave, container="MP3")
    apes = struct.pack("<8sIIII8x", b"APETAGEX", 2000, 32, 0, 0x80000000)
    yield AudioFile("MP3, two ID3 tags first", tag + tag + mp3, 1.5, LOSSY)
    yield AudioFile("MP3, APE and ID3v1 tags at its end", mp3 + apes + b"TAG" + bytes(125), 1.5, LOSSY)
    yield AudioFile("MP3, zeros first", bytes(5_000) + mp3, 1.5, LOSSY)
    yield AudioFile("MP3 of changing bit rate without Xing header", without_xing(), 6.0, LOSSY)
    yield AudioFile("MP3 whose Xing header says twice the length", lying_xing(mp3), 1.5, LOSSY, short)


def with_unknown_bytes() -> Iterator[AudioFile]:
    """Yield files that are followed by bytes that are no chunk, tag or file."""
    unknown = b"\1\2\3\0" * 20_000
    for container, codec, padding in (
        *(("flac", "flac", 0.0), ("ogg", "vorbis", LOSSY), ("ipod", "aac", LOSSY), ("matroska", "flac", 0.0)),
        *(("avi", "pcm_s16le", 0.0), ("flv", "aac", LOSSY), ("mpegts", "aac", LOSSY), ("mpeg", "mp2", LOSSY)),
        *(("adts", "aac", LOSSY), ("tta", "tta", 0.0)),
    ):
        data = muxed(tone(1.5, 48_000, 2), 48_000, container, codec) + unknown
        yield AudioFile(f"{container}: {codec}, unknown bytes at its end", data, 1.5, padding, ("cut short",))
    listed = encoded(tone(1.5)) + b"LIST" + struct.pack("<I", 4) + b"INFO" + unknown
    yield AudioFile("WAV, unknown bytes behind its last chunk", listed, 1.5, 0.0, ("cut short",))


def without_xing() -> bytes:
    """Return an MP3 of 6 s without its header frame; its louder beginning makes the first bit rate misleading."""
    loud, quiet = np.random.default_rng(0).normal(0, 0.3, 2 * RATE).clip(-1, 1), np.zeros(4 * RATE)
    buffer = io.BytesIO()
    options = {"format": "MP3", "bitrate_mode": "VARIABLE", "compression_level": 0.2}
    soundfile.write(buffer, np.concatenate([loud, quiet]), RATE, **options)
    data = buffer.getvalue()
    return data[data.index(data[:2], 4) :] if b"Xing" in data[:200] or b"Info" in data[:200] else data


def lying_xing(mp3: bytes) -> bytes:
    place = max(mp3.find(b"Xing"), mp3.find(b"Info")) + 8
    (frames,) = struct.unpack_from(">I", mp3, place)
    return put(mp3, place, ">I", 2 * frames)


def joined() -> Iterator[AudioFile]:
    """Yield files laid end to end, as by ``cat``."""
    for container, codec, reasons in (
        *(("mp3", "libmp3lame", ("longer than its header",)), ("adts", "aac", ()), ("mp2", "mp2", ())),
        *(("ipod", "aac", ("joined",)), ("webm", "libopus", ("joined",)), ("ac3", "ac3", ())),
        *(("matroska", "flac", ("joined",)), ("ogg", "libopus", ()), ("oga", "flac", ())),
        *(("flac", "flac", ("joined",)), ("wav", "pcm_s16le", ("joined",))),
        *(("aiff", "pcm_s16be", ("joined",)), ("caf", "pcm_s16le", ("joined",)), ("w64", "pcm_s16le", ("joined",))),
        *(("au", "pcm_s16be", ("joined",)), ("amr", "libopencore_amrnb", ()), ("ogg", "vorbis", ())),
        *(("avi", "pcm_s16le", ("joined",)), ("flv", "aac", ("joined",)), ("mpegts", "aac", ()), ("mpeg", "mp2", ())),
    ):
        rate = 8_000 if container == "amr" else 48_000
        channels = 1 if container == "amr" else 2
        first, second = (muxed(tone(s, rate, channels, p), rate, container, codec) for s, p in ((0.7, 400), (1.6, 900)))
        padding = 0.0 if codec.startswith(("pcm", "flac")) else 2 * LOSSY if container == "amr" else LOSSY
        yield AudioFile(f"{container}: {codec}, two joined", first + second, 2.3, padding, reasons)
    vorbis, opus = encoded(tone(0.7), RATE, "OGG", "VORBIS"), encoded(tone(0.8, 48_000), 48_000, "OGG", "OPUS")
    slow, wide = encoded(tone(1.0, 16_000), 16_000, "OGG", "VORBIS"), encoded(tone(0.9, RATE, 2), RATE, "OGG", "VORBIS")
    yield AudioFile("Ogg, three chained", vorbis + vorbis + vorbis, 2.1, LOSSY)
    yield AudioFile("Ogg, chained at other rates", vorbis + slow, 1.7, LOSSY)
    yield AudioFile("Ogg, chained of other channels", vorbis + wide, 1.6, LOSSY)
    yield AudioFile("Ogg, chained of other codecs", vorbis + opus + slow, 2.5, LOSSY)
    wav = encoded(tone(0.7))
    others = encoded(tone(1.0, 16_000), 16_000, codec="FLOAT") + encoded(tone(0.5), container="FLAC")
    yield AudioFile("WAV, joined to one of another rate and a FLAC", wav + others, 2.2, 0.001, ("joined",))
    yield from joined_to_others()
    mp3 = encoded(tone(0.7), container="MP3") + encoded(tone(1.0, 16_000), 16_000, "MP3")
    yield AudioFile("MP3, joined at other rates", mp3, 1.7, 2 * LOSSY, ("longer than its header",))


def joined_to_others() -> Iterator[AudioFile]:
    """Yield files of one format, each followed by a file of another format or rate, as by ``cat``."""
    mp3 = b"ID3\4\0\0\0\0\1\0" + bytes(128) + muxed(tone(1.0, RATE, 2), RATE, "mp3", "libmp3lame")
    wav, flac = encoded(tone(1.0, 16_000), 16_000), encoded(tone(0.7), container="FLAC")
    aac = muxed(tone(1.0, 16_000), 16_000, "adts", "aac")
    first = {
        name: muxed(tone(0.7, RATE, 2), RATE, *name.split()) for name in ("ipod aac", "matroska aac", "mpegts aac")
    }
    pairs = {
        "WAV and MP3": encoded(tone(0.7)) + mp3,
        "FLAC and WAV": flac + wav,
        "FLAC and MP3": flac + mp3,
        "FLAC and MP3 without a tag": flac + mp3[138:],
        "Ogg and MP3": encoded(tone(0.7), RATE, "OGG", "VORBIS") + mp3,
        "M4A and ADTS": first["ipod aac"] + aac,
        "Matroska at two rates": first["matroska aac"] + muxed(tone(1.0, 16_000), 16_000, "matroska", "aac"),
        "Matroska and WAV": first["matroska aac"] + wav,
        "MPEG transport stream and FLAC": first["mpegts aac"] + encoded(tone(1.0), container="FLAC"),
        "WAV and AC-3": encoded(tone(0.7)) + muxed(tone(1.0, 48_000, 2), 48_000, "ac3", "ac3"),
    }
    for name, data in pairs.items():
        yield AudioFile(f"{name}, joined", data, 1.7, 2 * LOSSY, ("joined",))
    live = [muxed(tone(s, r), r, "matroska", "aac", live="1") for s, r in ((0.7, RATE), (1.0, 16_000))]
    yield AudioFile("Matroska without lengths at two rates, joined", b"".join(live), 1.7, 2 * LOSSY, ("joined",))


def cut_short() -> Iterator[AudioFile]:
    """Yield files without their last third; their expected length is FFmpeg's."""
    for container, codec in (
        *(
            ("mp3", "libmp3lame"),
            ("wav", "pcm_s16le"),
            ("aiff", "pcm_s16be"),
            ("caf", "pcm_s16le"),
            ("w64", "pcm_s16le"),
        ),
        *(("au", "pcm_s16be"), ("webm", "libopus"), ("matroska", "flac"), ("ogg", "libopus"), ("oga", "flac")),
        *(("flv", "aac"), ("avi", "pcm_s16le"), ("wv", "wavpack"), ("asf", "wmav2")),
    ):
        data = muxed(tone(6, 48_000, 2), 48_000, container, codec)
        yield AudioFile(f"{container}: {codec}, cut short", data[: len(data) * 2 // 3], 4.0, 1.2, ("cut short",))
    data = muxed(tone(6, RATE, 2), RATE, "ipod", "aac", movflags="faststart")
    yield AudioFile("ipod: aac, header first, cut short", data[: len(data) * 2 // 3], 4.0, 0.2, ("cut short",))
