"""Any audio becomes mono 16-bit samples at one rate, in bounded pieces; bad audio is refused with a reason."""

from __future__ import annotations

import errno
import gzip
import io
import struct
import tracemalloc

import av
import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from support.audio_files import CountingFile, encoded

from unfused_ray.audio.decode import AudioError, decode, encode_flac, read_flac, refuse_unusable

RATE = 16_000
FORMATS = [
    ("WAV", "PCM_U8"),
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "PCM_32"),
    ("WAV", "FLOAT"),
    ("WAV", "DOUBLE"),
    ("FLAC", "PCM_S8"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]


def tone(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    """Return two partials under a slow envelope: (samples, channels) float64."""
    time = np.arange(round(seconds * rate)) / rate
    partials = 0.4 * np.sin(2 * np.pi * 440 * time) + 0.2 * np.sin(2 * np.pi * 1250 * time)
    wave = partials * np.sin(np.pi * time / seconds)
    return np.repeat(wave[:, None], channels, axis=1)


def decoded(data: bytes, max_samples: int = 10 * RATE) -> np.ndarray:
    return np.concatenate(list(decode(io.BytesIO(data), RATE, max_samples)))


def reason_of(data: bytes) -> str:
    with pytest.raises(AudioError) as raised:
        decoded(data)
    return raised.value.reason


@pytest.mark.parametrize(("kind", "subtype"), FORMATS)
@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (48_000, 2)])
def test_every_format_gives_the_same_sound(kind: str, subtype: str, rate: int, channels: int):
    pcm = decoded(encoded(tone(1.0, rate, channels), rate, kind, subtype))
    expected = tone(1.0, RATE)[:, 0]
    assert pcm.dtype == np.int16
    assert abs(len(pcm) - RATE) <= RATE * 0.05  # lossy encoders add padding
    lossy = subtype in ("VORBIS", "OPUS", "MPEG_LAYER_III")
    length = min(len(pcm), RATE)
    error = pcm[:length] / 32768 - expected[:length]
    assert np.sqrt(np.mean(error**2)) < (0.03 if lossy else 0.01 if subtype in ("PCM_U8", "PCM_S8") else 1e-3)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 96_000, 384_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_resampling_in_pieces_equals_resampling_at_once(rate: int, channels: int):
    wave = np.random.default_rng(rate).normal(0, 0.1, (round(2.3 * rate), channels)).astype(np.float32)
    expected = soxr.resample(wave.mean(axis=1), rate, RATE)
    pcm = decoded(encoded(wave, rate, codec="FLOAT"), max_samples=7_000)
    assert len(pcm) == len(expected)
    np.testing.assert_allclose(pcm / 32768, expected, atol=2 / 32768)


def test_16_bit_audio_at_the_rate_is_kept_bit_by_bit():
    pcm = np.random.default_rng(0).integers(-32768, 32768, 50_000).astype(np.int16)
    for kind in ("WAV", "FLAC"):
        assert np.array_equal(decoded(encoded(pcm, RATE, kind, "PCM_16")), pcm)


def test_float_audio_beyond_full_scale_is_clipped_not_wrapped():
    pcm = decoded(encoded(np.array([2.0, -2.0, 1.0, -1.0, 0.0]), RATE, codec="FLOAT"))  # too short to judge the scale
    assert pcm.tolist() == [32767, -32768, 32767, -32768, 0]


def test_a_peak_beyond_full_scale_is_told_once_and_that_of_a_lossy_codec_is_not():
    told: list[tuple[str, str]] = []

    def warnings_of(peak: float) -> list[tuple[str, str]]:
        told.clear()
        data = encoded(np.concatenate([tone(12.0, RATE), peak * tone(12.0, RATE)]), RATE, codec="FLOAT")
        list(decode(io.BytesIO(data), RATE, RATE, warn=lambda reason, detail: told.append((reason, detail))))
        return told

    assert warnings_of(2.0) == []  # its peak is 1.1 times full scale
    ((reason, detail),) = warnings_of(3.0)  # 1.7 times full scale
    assert reason == "beyond full scale"
    assert "times full scale after 10 s" in detail


@pytest.mark.parametrize(("kind", "subtype"), [("WAV", "FLOAT"), ("WAV", "DOUBLE"), ("AIFF", "FLOAT")])
def test_float_samples_of_the_scale_of_integers_are_no_square_waves(kind: str, subtype: str):
    with pytest.raises(AudioError, match=r"reach [0-9.]+ times full scale.*divided by 32768") as raised:
        decoded(encoded(8_000 * tone(1.0, RATE, channels=2), RATE, kind, subtype))
    assert raised.value.reason == "wrong scale"


@pytest.mark.parametrize("begins", ["quietly", "silently"])
def test_no_piece_of_a_wrong_scale_comes_before_its_refusal(begins: str):
    quiet = np.random.default_rng(0).normal(0, 3, 20 * RATE).clip(-9, 9)  # in units of 16-bit samples
    if begins == "silently":
        quiet[: 10 * RATE] = 0
    data = encoded(np.concatenate([quiet, 8_000 * tone(20.0, RATE)[:, 0]]), RATE, codec="FLOAT")
    pieces = []
    with pytest.raises(AudioError, match=r"beyond 1\.5 times full scale.*divided by 32768") as raised:
        pieces.extend(decode(io.BytesIO(data), RATE, RATE))
    assert raised.value.reason == "wrong scale"
    assert not any(piece.any() for piece in pieces)


def test_a_loud_end_of_less_than_a_second_is_no_other_scale():
    wave = np.concatenate([tone(10.0, RATE)[:, 0], np.full(100, 2.0)])
    assert len(decoded(encoded(wave, RATE, codec="FLOAT"))) == len(wave)


@settings(max_examples=25)
@given(num_samples=st.integers(1, 5_000), max_samples=st.integers(1, 2_000))
def test_pieces_are_full_but_the_last_and_lose_nothing(num_samples: int, max_samples: int):
    pcm = np.arange(num_samples).astype(np.int16)
    pieces = list(decode(io.BytesIO(encoded(pcm, RATE)), RATE, max_samples))
    assert [len(piece) for piece in pieces[:-1]] == [max_samples] * (len(pieces) - 1)
    assert 0 < len(pieces[-1]) <= max_samples
    assert np.array_equal(np.concatenate(pieces), pcm)


def test_who_takes_one_piece_reads_no_more():
    data = encoded(np.ones(RATE * 600, np.int16), RATE)
    file = CountingFile(data)
    assert len(next(decode(file, RATE, RATE))) == RATE
    assert file.bytes_read < len(data) / 10


@settings(max_examples=25)
@given(start=st.integers(0, 12_000), length=st.integers(1, 12_000), rate=st.sampled_from([8_000, RATE]))
def test_a_part_of_the_audio_is_cut_at_the_rate_of_its_file(start: int, length: int, rate: int):
    pcm = np.random.default_rng(0).integers(-9_000, 9_000, 10_000).astype(np.int16)
    found = decode(io.BytesIO(encoded(pcm, rate)), RATE, 3_000, start / rate, length / rate)
    part = pcm[start : start + length]
    if not len(part):
        with pytest.raises(AudioError, match="empty"):
            next(found)
        return
    np.testing.assert_array_equal(np.concatenate(list(found)), decoded(encoded(part, rate)))


def test_a_small_file_of_days_is_decoded_piece_by_piece_and_no_further_than_a_day():
    bomb = io.BytesIO()
    hour = np.zeros(3_600_000, np.int16)
    with soundfile.SoundFile(bomb, "w", 1_000, 1, "PCM_16", format="FLAC") as file:
        for _ in range(25):
            file.write(hour)
    assert len(bomb.getvalue()) < 1_000_000
    seconds = 0
    tracemalloc.start()
    with pytest.raises(AudioError, match="24 hours") as raised:
        for piece in decode(io.BytesIO(bomb.getvalue()), 1_000, 600_000):
            seconds += len(piece) // 1_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (raised.value.reason, seconds) == ("too long", 24 * 3600)
    assert peak < 10e6


class FailingFile(io.BytesIO):
    """A file in memory; reading its second half raises EIO."""

    def readinto(self, buffer: object) -> int:
        if self.tell() > len(self.getvalue()) // 2:
            raise OSError(errno.EIO, "Input/output error")
        return super().readinto(buffer)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "subtype"), FORMATS)
def test_audio_that_cannot_be_read_to_its_end_is_no_shorter_audio(kind: str, subtype: str):
    rate = 48_000
    wave = np.random.default_rng(0).normal(0, 0.1, (20 * rate, 2))
    with pytest.raises(AudioError, match="Input/output error") as raised:
        list(decode(FailingFile(encoded(wave, rate, kind, subtype)), RATE, RATE))
    assert raised.value.reason == "unreadable"


def damage(data: bytes, start: int, replacement: bytes) -> bytes:
    return data[:start] + replacement + data[start + len(replacement) :]


def test_bad_audio_has_a_reason():
    good = encoded(tone(1.0, RATE), RATE, "FLAC", "PCM_16")
    wav = encoded(tone(1.0, RATE), RATE)
    assert reason_of(b"") == "empty"
    assert reason_of(encoded(np.empty(0, np.int16), RATE)) == "empty"
    assert reason_of(b"<html>404</html>" * 50) == "wrong format"
    assert reason_of(good[: len(good) // 2]) == "unreadable"
    assert reason_of(damage(good, len(good) // 2, bytes(500))) == "unreadable"
    assert reason_of(b"RIFF\0\0\0\0WAVE") == "unreadable"
    assert reason_of(encoded(np.array([0.1, np.nan, 0.1]), RATE, codec="FLOAT")) == "not finite"
    assert reason_of(encoded(np.array([[0.1, np.inf], [0.1, 0.1]]), RATE, codec="DOUBLE")) == "not finite"
    assert reason_of(damage(wav, 24, struct.pack("<I", 0))) in ("wrong format", "unreadable")
    assert reason_of(damage(wav, 24, struct.pack("<I", 7))) == "wrong format"
    assert reason_of(damage(wav, 24, struct.pack("<I", 2**31 - 1))) == "wrong format"


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"/annex/objects/SHA256E-s9--0.wav\n", "git annex get"),
        (gzip.compress(b"RIFF", mtime=0), "packed by gzip: unpack it"),
        (b"<html>404</html>" * 50, r"begins with b'<html>404</html>"),
    ],
    ids=["git-lfs", "git-annex", "gzip", "html"],  # names: bytes of a gzip could differ between workers
)
def test_a_file_that_stands_for_another_says_so(data: bytes, detail: str):
    with pytest.raises(AudioError, match=detail):
        decoded(data)


def bursts(sync: bytes, distance: int, count: int, step: int = 0) -> np.ndarray:
    """Return (samples, 2) int16: words of noise after each of some sync words."""
    rng = np.random.default_rng(0)
    parts = [sync + rng.bytes(distance + place * step - len(sync)) for place in range(count)]
    return np.frombuffer(b"".join(parts), "<i2").reshape(-1, 2)


SYNCS = {
    "DTS": ("7ffe8001fc3c", "fe7f01803cfc", "1fffe80007f1", "ff1f00e8f107"),
    "IEC 61937": ("f8724e1f0001", "72f81f4e0100"),
}


@pytest.mark.parametrize(("name", "sync"), [(name, sync) for name, syncs in SYNCS.items() for sync in syncs])
@pytest.mark.parametrize(("kind", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("AIFF", "PCM_24")])
def test_compressed_audio_that_is_declared_as_pcm_is_not_decoded_to_noise(
    name: str, sync: str, kind: str, subtype: str
):
    for start in (0.0, 0.5):
        data = encoded(bursts(bytes.fromhex(sync), 2048, 150), 44_100, kind, subtype)
        with pytest.raises(AudioError, match=rf"{name}.*, not PCM: a sync word every 2048 bytes") as raised:
            list(decode(io.BytesIO(data), RATE, RATE, start))
        assert raised.value.reason == "wrong format"


def test_ac3_for_a_receiver_is_known_in_a_wav():
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="spdif") as container:
        stream = container.add_stream("ac3", rate=48_000, layout="stereo")
        for _ in range(8):
            frame = av.AudioFrame.from_ndarray(np.zeros((2, 1536), np.float32), "fltp", "stereo")
            frame.sample_rate = 48_000
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    samples = np.frombuffer(buffer.getvalue(), "<i2").reshape(-1, 2)
    with pytest.raises(AudioError, match="IEC 61937"):
        decoded(encoded(samples, 48_000))


@pytest.mark.parametrize("sync", [sync for syncs in SYNCS.values() for sync in syncs])
def test_pcm_that_holds_a_sync_word_is_pcm(sync: str):
    once = bursts(bytes.fromhex(sync), 40_000, 1)
    irregular = bursts(bytes.fromhex(sync), 2048, 5, step=4)
    for samples in (once.reshape(-1), irregular.reshape(-1)):
        np.testing.assert_array_equal(decoded(encoded(samples, RATE)), samples)


@pytest.mark.parametrize("levels", [(32766, -32767), (-32767, 32766), (8191, -6144)])
def test_a_square_wave_between_the_halves_of_a_sync_word_is_pcm(levels: tuple[int, int]):
    wave = np.tile(np.repeat(np.array(levels, np.int16), 40), 100)
    np.testing.assert_array_equal(decoded(encoded(wave, RATE)), wave)


def test_a_header_that_promises_hours_is_not_believed():
    wav = encoded(tone(1.0, RATE), RATE)
    assert len(decoded(damage(wav, 40, struct.pack("<I", 2**32 - 1)))) == RATE


@settings(max_examples=150)
@given(data=st.data())
def test_any_damage_is_an_audio_error_or_decodes(data: st.DataObject):
    kind, subtype = data.draw(st.sampled_from(FORMATS))
    good = encoded(tone(0.3, RATE), RATE, kind, subtype)
    start = data.draw(st.integers(0, len(good)))
    bad = damage(good, start, data.draw(st.binary(max_size=40)))[: data.draw(st.integers(0, len(good)))]
    try:
        for piece in decode(io.BytesIO(bad), RATE, 1_000):
            assert 0 < len(piece) <= 1_000
    except AudioError as error:
        assert error.reason in ("unreadable", "wrong format", "empty", "not finite", "wrong scale")


def test_short_and_silent_clips_are_refused():
    loud = np.full(1_600, 1_000, np.int16)
    refuse_unusable(loud, RATE, min_seconds=0.1, silence_peak=1e-4)
    with pytest.raises(AudioError, match="too short"):
        refuse_unusable(loud[:-1], RATE, min_seconds=0.1, silence_peak=1e-4)
    with pytest.raises(AudioError, match="silent"):
        refuse_unusable(np.full(1_600, -3, np.int16), RATE, min_seconds=0.1, silence_peak=1e-4)
    refuse_unusable(np.full(1_600, -32768, np.int16), RATE, min_seconds=0.1, silence_peak=0.9)
    refuse_unusable(np.zeros(1_600, np.int16), RATE, min_seconds=0.1, silence_peak=0)


@settings(max_examples=40)
@given(data=st.data())
def test_a_crop_of_flac_is_that_part_of_the_samples(data: st.DataObject):
    num_samples = data.draw(st.integers(1, 30_000))
    pcm = np.random.default_rng(num_samples).integers(-9_000, 9_000, num_samples).astype(np.int16)
    start = data.draw(st.integers(0, num_samples - 1))
    length = data.draw(st.integers(1, num_samples - start))
    crop = read_flac(encode_flac(pcm, RATE), start, length)
    assert crop.dtype == np.int16
    assert np.array_equal(crop, pcm[start : start + length])


def test_damaged_flac_is_an_audio_error():
    flac = encode_flac(np.random.default_rng(0).integers(-9_000, 9_000, 40_000).astype(np.int16), RATE)
    stereo = encoded(np.zeros((1_000, 2)), RATE, "FLAC")
    for data, start, length, reason in [
        (b"", 0, 100, "unreadable"),
        (flac[:1_000], 0, 15_200, "unreadable"),
        (damage(flac, len(flac) // 2, bytes(3_000)), 15_000, 15_200, "unreadable"),
        (flac, 30_000, 15_200, "unreadable: 10000 of 15200 samples from sample 30000"),
        (flac, 50_000, 1, "unreadable"),
        (stereo, 0, 100, "wrong format: 2 channels"),
    ]:
        with pytest.raises(AudioError, match=reason):
            read_flac(data, start, length)
