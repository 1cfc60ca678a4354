"""Every sample is decoded, whatever a file's codec, container, header and joins, or a warning says why not."""

from __future__ import annotations

import io
import itertools
import struct
from pathlib import Path

import numpy as np
import pytest
from support.audio_files import AudioFile, CountingFile, audio_files, encoded, muxed, tone
from support.decoding import by_ffmpeg, ours

from unfused_ray.audio.decode import AudioError, decode
from unfused_ray.audio.formats import FIRST_BYTES, begins_as_audio

RATE = 16_000
FILES = list(audio_files())


def decoded(data: bytes, start: float = 0.0, seconds: float | None = None) -> np.ndarray:
    return np.concatenate(list(decode(io.BytesIO(data), RATE, RATE, start, seconds)))


def warnings_of(data: bytes, start: float = 0.0, seconds: float | None = None) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for _ in decode(io.BytesIO(data), RATE, RATE, start, seconds, lambda *warning: found.append(warning)):
        pass
    return found


@pytest.mark.parametrize("file", FILES, ids=[file.name for file in FILES])
def test_a_file_is_decoded_whole_and_differences_to_its_header_are_said(file: AudioFile):
    found = ours(file.data)
    assert found.error == ""
    assert abs(found.seconds - file.seconds) <= file.padding + 1.5 / RATE
    by_itself = by_ffmpeg(file.data) or 0.0
    assert found.seconds >= min(by_itself, file.seconds) - 0.001
    assert set(file.warnings) <= set(found.warnings)
    assert set(found.warnings) - set(file.warnings) <= {"damaged"}, found.warnings


def test_there_are_sixty_files_or_more_with_names_of_their_own():
    assert len(FILES) >= 60 and len({file.name for file in FILES}) == len(FILES)


def test_pcm_of_any_container_has_equal_samples():
    pcm = np.random.default_rng(0).integers(-9_000, 9_000, (20_000, 1)).astype(np.int16)
    for container in ("WAV", "RF64", "W64", "AIFF", "CAF", "AU", "FLAC", "NIST", "VOC"):
        codec = "ALAC_16" if container == "CAF" else "PCM_16"
        np.testing.assert_array_equal(decoded(encoded(pcm, RATE, container, codec)), pcm[:, 0])
    for container, codec in (("mov", "pcm_s16le"), ("matroska", "flac"), ("ipod", "alac")):
        np.testing.assert_array_equal(decoded(muxed(pcm / np.float32(32768), RATE, container, codec)), pcm[:, 0])


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("mp3", "libmp3lame"),
        ("ipod", "aac"),
        ("webm", "libopus"),
        ("ogg", "libopus"),
        ("adts", "aac"),
        ("asf", "wmav2"),
    ],
)
def test_a_part_is_cut_at_the_sample(container: str, codec: str):
    rate = 48_000 if codec == "libopus" else RATE
    data = muxed(tone(4, rate, 2), rate, container, codec)
    whole = decoded(data)
    part = decoded(data, 1.25, 1.5)
    assert len(part) == 1.5 * RATE
    # Resampled parts differ at both ends, where the filter has less input.
    inner = slice(200, -200) if rate != RATE else slice(None)
    np.testing.assert_allclose(
        part[inner], whole[round(1.25 * RATE) :][: len(part)][inner], atol=0 if rate == RATE else 1
    )


def test_a_part_of_joined_files_goes_over_the_joint():
    first, second = (np.random.default_rng(n).integers(-9_000, 9_000, 8_000).astype(np.int16) for n in (0, 1))
    both = np.concatenate([first, second])
    for container in ("WAV", "AIFF", "FLAC"):
        data = encoded(first, RATE, container, "PCM_16") + encoded(second, RATE, container, "PCM_16")
        for start, length in ((0, 16_000), (4_000, 8_000), (9_000, 3_000)):
            found = decoded(data, start / RATE, length / RATE)
            np.testing.assert_array_equal(found, both[start : start + length])


@pytest.mark.parametrize("container", ["WAV", "FLAC"])
def test_a_part_of_a_flac_is_not_looked_for_in_the_file_joined_to_it(container: str):
    """libFLAC looks for the number of a frame, and the frames of both files are numbered from 0."""
    first, second = (np.random.default_rng(n).integers(-9_000, 9_000, 80_000).astype(np.int16) for n in (0, 1))
    both, data = np.concatenate([first, second]), encoded(first, RATE, "FLAC") + encoded(second, RATE, container)
    for start, length in ((16_000, 16_000), (70_000, 5_000), (70_000, 20_000), (80_000, 20_000), (90_000, 20_000)):
        np.testing.assert_array_equal(decoded(data, start / RATE, length / RATE), both[start : start + length])


@pytest.mark.parametrize(
    ("container", "codec"),
    [*(("WAV", codec) for codec in ("G721_32", "NMS_ADPCM_16", "NMS_ADPCM_32", "GSM610")), ("AU", "G723_24")],
)
def test_a_part_of_a_codec_that_cannot_be_entered_is_that_part(container: str, codec: str):
    data = encoded(tone(3, RATE), RATE, container, codec)
    np.testing.assert_array_equal(decoded(data, 1.25, 1.0), decoded(data)[20_000:36_000])


def test_a_part_that_lies_behind_the_end_is_said():
    data = encoded(tone(2, RATE), RATE)
    assert warnings_of(data, 0.5, 1.5) == []
    assert warnings_of(data, 1.5, 1.0) == [("cut short", "0.50 of the 1.00 s asked for lie past its end")]
    with pytest.raises(AudioError, match="empty"):
        decoded(data, 3.0, 1.0)


def test_channels_that_cancel_give_the_loudest_and_a_warning():
    sound = tone(3, RATE)[:, 0]
    opposite = encoded(np.stack([0.9 * sound, -sound], axis=1), RATE, codec="FLOAT")
    expected = np.rint(-sound * 32768)
    np.testing.assert_allclose(decoded(opposite), expected, atol=1)
    assert warnings_of(opposite) == [
        ("channels cancel", "its 2 channels cancel each other: the loudest is used, channel 2 first")
    ]
    noise = np.random.default_rng(0).normal(0, 0.1, (3 * RATE, 2)).astype(np.float32)
    for fine in (np.stack([sound, sound], axis=1), np.stack([sound, 0 * sound], axis=1), noise, 0 * noise):
        data = encoded(fine, RATE, codec="FLOAT")
        np.testing.assert_allclose(decoded(data), np.rint(fine.mean(axis=1) * 32768), atol=1)
        assert warnings_of(data) == []


def test_channels_that_cancel_in_a_part_give_the_loudest_there_and_the_mean_elsewhere():
    noise = np.random.default_rng(0).normal(0, 0.1, (3 * RATE, 1)).astype(np.float32)
    none = 0 * noise
    late = np.concatenate([np.hstack([noise, noise])] * 5 + [np.hstack([noise, -noise])] * 5)
    found = decoded(encoded(late, RATE, codec="FLOAT"))
    np.testing.assert_allclose(found, np.rint(np.tile(noise[:, 0], 10) * 32768), atol=1)
    assert [reason for reason, _ in warnings_of(encoded(late, RATE, codec="FLOAT"))] == ["channels cancel"]

    first, then = np.hstack([noise, -noise, none, none]), np.hstack([none, none, -noise, noise])
    changing = encoded(np.concatenate([first] * 4 + [then] * 4), RATE, codec="FLOAT")
    found = decoded(changing)
    np.testing.assert_allclose(found[: 12 * RATE], np.rint(np.tile(noise[:, 0], 4) * 32768), atol=1)
    np.testing.assert_allclose(found[12 * RATE :], np.rint(np.tile(-noise[:, 0], 4) * 32768), atol=1)
    assert [reason for reason, _ in warnings_of(changing)] == ["channels cancel"]


def test_the_channel_is_kept_while_another_is_little_louder():
    noise = np.random.default_rng(0).normal(0, 0.1, (RATE, 1)).astype(np.float32)
    wave = np.concatenate([np.hstack([noise * (1 - 0.1 * (n % 2)), -noise * (0.9 + 0.1 * (n % 2))]) for n in range(6)])
    np.testing.assert_allclose(decoded(encoded(wave, RATE, codec="FLOAT")), np.rint(wave[:, 0] * 32768), atol=1)


def test_of_files_of_any_two_formats_that_lie_end_to_end_none_is_lost_without_a_warning():
    kinds = (
        *(("wav", "pcm_s16le"), ("aiff", "pcm_s16be"), ("au", "pcm_s16be"), ("caf", "pcm_s16le"), ("w64", "pcm_s16le")),
        *(
            ("flac", "flac"),
            ("ogg", "libopus"),
            ("mp3", "libmp3lame"),
            ("adts", "aac"),
            ("ac3", "ac3"),
            ("ipod", "aac"),
        ),
        *(("matroska", "aac"), ("asf", "wmav2"), ("avi", "libmp3lame"), ("flv", "aac"), ("mpegts", "aac")),
        *(("mpeg", "mp2"), ("tta", "tta"), ("wv", "wavpack")),
    )
    noise = np.random.default_rng(0).normal(0, 0.1, (24_000, 2)).astype(np.float32)
    data = {kind: muxed(noise, 48_000, *kind) for kind in kinds}
    for first, second in itertools.product(kinds, kinds):
        found = ours(data[first] + data[second])
        assert not found.error, (first, second)
        assert found.warnings or abs(found.seconds - 1) < 0.2, (first, second, found)


def test_a_picture_or_a_wav_header_in_a_flac_file_is_not_taken_for_another_file():
    flac, wav = encoded(tone(0.5), container="FLAC"), encoded(tone(0.2))
    assert flac[4] & 128 == 0
    with_header = flac[:42] + b"\2" + len(wav).to_bytes(3, "big") + wav + flac[42:]
    assert ours(with_header) == ours(flac)
    # Equal FLAC frames of silence look like frames of AAC.
    silence = np.zeros(20 * RATE, np.int16)
    assert (
        warnings_of(encoded(silence, RATE, "FLAC")) == [] and len(decoded(encoded(silence, RATE, "FLAC"))) == 20 * RATE
    )


def test_a_thousand_files_that_lie_end_to_end_are_read():
    wave = np.random.default_rng(0).integers(-9_000, 9_000, 160).astype(np.int16)
    for container in ("FLAC", "WAV"):
        np.testing.assert_array_equal(decoded(encoded(wave, RATE, container) * 1_000), np.tile(wave, 1_000))
    flac = encoded(wave, RATE, "FLAC") * 3 + encoded(wave, RATE) * 2
    np.testing.assert_array_equal(decoded(flac, 350 / RATE, 400 / RATE), np.tile(wave, 5)[350:750])
    np.testing.assert_array_equal(decoded(flac, 500 / RATE), np.tile(wave, 5)[500:])


def test_a_tag_at_the_end_of_a_flac_file_is_no_audio():
    flac = encoded(tone(0.5), container="FLAC")
    for tag in (
        b"ID3\4\0\0\0\4\0\0" + bytes(1 << 16),
        struct.pack("<8sII16x", b"APETAGEX", 2000, 1 << 16) + bytes(1 << 16),
    ):
        assert warnings_of(flac + tag) == []


def test_a_file_that_grows_while_it_is_read_ends_where_it_ended_and_says_so(tmp_path: Path):
    path = tmp_path / "growing.wav"
    path.write_bytes(encoded(tone(30, RATE), RATE))
    found: list[tuple[str, str]] = []
    with path.open("rb") as source:
        pieces = decode(source, RATE, RATE, warn=lambda *warning: found.append(warning))
        samples = len(next(pieces))
        with path.open("ab") as writer:
            writer.write(bytes(1000))
        samples += sum(map(len, pieces))
    assert samples == 30 * RATE
    assert found == [("changed while read", "it had 960044 bytes at first, which were read, and +1000 afterwards")]


def test_a_recorder_that_writes_faster_than_is_read_is_not_followed_for_ever():
    second = muxed(tone(1, 48_000), 48_000, "adts", "aac")

    class Recorded(io.BytesIO):
        def readinto(self, buffer: object) -> int:
            place = self.tell()
            self.seek(0, io.SEEK_END)
            self.write(second)
            self.seek(place)
            return super().readinto(buffer)  # type: ignore[arg-type]

    assert sum(map(len, decode(Recorded(second), RATE, RATE))) == len(decoded(second))


def test_an_interrupt_while_c_code_reads_is_not_dropped():
    class Interrupted(io.BytesIO):
        def readinto(self, buffer: object) -> int:
            if self.tell() > len(self.getvalue()) // 2:
                raise KeyboardInterrupt
            return super().readinto(buffer)  # type: ignore[arg-type]

    for data in (encoded(tone(20, RATE), RATE), muxed(tone(20, RATE), RATE, "ipod", "aac", movflags="faststart")):
        with pytest.raises(KeyboardInterrupt):
            for _ in decode(Interrupted(data), RATE, RATE):
                pass


def test_who_takes_one_piece_of_a_long_file_reads_no_more():
    data = muxed(tone(300, RATE), RATE, "mp3", "libmp3lame")
    file = CountingFile(data)
    assert len(next(decode(file, RATE, RATE))) == RATE
    assert file.bytes_read < len(data) / 5


@pytest.mark.slow
def test_a_wav_of_more_bytes_than_its_header_can_say_is_read_to_its_end(tmp_path: Path):
    wav = encoded(np.zeros((8, 16), np.float32), 384_000, codec="FLOAT")
    start, size = len(wav) - 512, 4_400_000_000
    for claimed in (2**32 - 1, size % 2**32, 0):
        place = wav.index(b"data") + 4
        with (tmp_path / "long.wav").open("wb") as file:
            file.write(wav[:place] + claimed.to_bytes(4, "little") + wav[place + 4 : start])
            file.truncate(start + size)
        with (tmp_path / "long.wav").open("rb") as source:
            samples = sum(len(piece) for piece in decode(source, RATE, RATE))
        assert abs(samples / RATE - size / 64 / 384_000) < 0.01


def test_a_box_that_claims_more_samples_than_bytes_is_not_believed():
    """FFmpeg would allocate a table with 24 bytes for each claimed sample."""
    data = bytearray(muxed(tone(0.5), 44_100, "mp4", "aac", movflags="empty_moov"))
    place = data.index(b"trun") + 8
    data[place : place + 4] = (80_000_000).to_bytes(4, "big")
    assert ours(bytes(data)).error == f"unreadable: its trun claims 80000000 samples, it has {len(data)} bytes"
    # A box that claims to be larger than the box around it does not hide the boxes behind it.
    place = data.index(b"tkhd") - 4
    data[place : place + 4] = struct.pack(">I", 32_860)
    assert ours(bytes(data)).error == f"unreadable: its trun claims 80000000 samples, it has {len(data)} bytes"


def test_quicktime_may_count_the_samples_of_the_decoded_sound():
    """QuickTime itself wrote compressed sound so: samples of one byte, which last a tick each."""
    data = bytearray(muxed(tone(1.5), 44_100, "mov", "adpcm_ima_qt"))
    (packets,) = struct.unpack_from(">I", data, place := data.index(b"stsz") + 12)
    samples = 64 * packets
    data[place - 4 : place + 4] = struct.pack(">II", 1, samples)
    for name, offset, values in (("stsc", 16, (samples,)), ("stts", 12, (samples, 1))):
        struct.pack_into(f">{len(values)}I", data, data.index(name.encode()) + offset, *values)
    assert samples > len(data)
    found = ours(bytes(data))
    assert (found.error, found.warnings) == ("", ()) and abs(found.seconds - samples / 44_100) < 0.001
    # FFmpeg would make a table for pictures, and for samples of other lengths.
    refused = f"unreadable: its stsz claims {samples} samples, it has {len(data)} bytes"
    assert ours(data.replace(b"soun", b"vide")).error == refused
    struct.pack_into(">I", data, data.index(b"stts") + 16, 2)
    assert ours(bytes(data)).error == refused


def test_what_is_no_audio_is_refused_and_not_decoded_to_noise():
    rng = np.random.default_rng(0)
    sync = bytes.fromhex("fffb9064")
    others = {
        "html": b"<html>404</html>" * 50,
        "noise": rng.bytes(100_000),
        "noise after a frame's header": sync + rng.bytes(100_000),
        "tag alone": b"ID3\4\0\0\0\0\7\x76" + bytes(1014),
        "zip": b"PK\3\4" + rng.bytes(5_000),
        "picture": b"\0\0\0\x20ftypheic\0\0\0\0mif1heic" + rng.bytes(5_000),
        "playlist": b"#EXTM3U\nfile:///etc/passwd\n",
        "concatenation": b"ffconcat version 1.0\nfile /etc/passwd\n",
    }
    for name, data in others.items():
        assert ours(data).error.startswith("wrong format"), name
    silent_movie = muxed(tone(0.1), 44_100, "mp4", "aac").replace(b"soun", b"vide")
    assert ours(silent_movie).error


def test_audio_is_known_by_its_beginning():
    for file in FILES:
        if not any(name in file.name for name in ("zeros first", "IRCAM")):
            assert begins_as_audio(file.data[:FIRST_BYTES]), file.name
    for other in (
        *(b"wav_path,label\n", b"MAC address", b"caffeine", b"", b"RIFF"),
        *(b"GATTACA" * 40 + b"G" * 400 + b"TA" * 4_000, b"\x0b\x77" + bytes(500)),
        *(b"\0\0\0\x20ftypheic", b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(500)),
    ):
        assert not begins_as_audio(other), other


def test_the_end_of_flac_that_looks_like_a_frame_of_mp3_is_flac() -> None:
    pcm = np.random.default_rng(0).integers(-(2**15), 2**15, 2000).astype(np.int16)  # FLAC stores noise as it is
    header = np.frombuffer(b"\xff\xfb\x92\x00", ">i2")  # of an MP3 frame of 418 bytes
    pcm[1792:1794] = header
    data = encoded(pcm, RATE, "FLAC")
    assert data[-418:-414] == header.tobytes()
    assert warnings_of(data) == []
    assert np.array_equal(decoded(data), pcm)
