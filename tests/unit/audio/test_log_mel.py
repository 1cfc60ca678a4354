"""The front end's log-mels and filters equal librosa's."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from unfused_ray.audio.log_mel import LogMel, mel_filters
from unfused_ray.config import FrontEndConfig


def reference(wave: np.ndarray, config: FrontEndConfig) -> np.ndarray:
    """Compute librosa's log-mel in double precision."""
    power = librosa.feature.melspectrogram(
        y=wave.astype(np.float64),
        sr=config.sample_rate,
        n_fft=config.n_fft,
        hop_length=config.hop,
        n_mels=config.num_mels,
        fmin=config.f_min,
        fmax=config.f_max,
        center=True,
        pad_mode="reflect",
        power=2.0,
        htk=False,
        norm="slaney",
        dtype=np.float64,
    )
    return np.log(np.maximum(power, config.floor))


def sounds(num_samples: int, sample_rate: int) -> np.ndarray:
    """Return loud noise, quiet noise, a chirp and a decaying tone in silence: (4, num_samples)."""
    rng = np.random.default_rng(0)
    t = np.arange(num_samples) / sample_rate
    return np.stack(
        [
            rng.uniform(-1, 1, num_samples),
            rng.normal(0, 1e-3, num_samples),
            0.5 * np.sin(2 * np.pi * (100 + 3000 * t) * t),
            np.sin(2 * np.pi * 440 * t) * np.exp(-20 * t) * (t < t[-1] / 2),
        ]
    )


@pytest.mark.parametrize(
    "config",
    [
        FrontEndConfig(),
        FrontEndConfig(num_mels=96, hop=320, floor=1e-10),
        FrontEndConfig(sample_rate=8000, n_fft=256, hop=80, num_mels=20, f_min=0, f_max=900),
        FrontEndConfig(sample_rate=11_025, f_max=5000),
        FrontEndConfig(n_fft=401),
    ],
    ids=["default", "fine", "below-1kHz", "odd-rate", "odd-n_fft"],
)
def test_values_are_librosas(config):
    waves = sounds(15_200, config.sample_rate)
    pcm = (waves * 32767).astype(np.int16)
    log_mel = LogMel(config)(torch.from_numpy(pcm))
    assert log_mel.shape == (4, config.num_mels, config.num_frames(15_200))
    for ours, wave in zip(log_mel, pcm / 32768, strict=True):
        np.testing.assert_allclose(ours, reference(wave, config), atol=1e-4, rtol=0)


# librosa pads by numpy, whose reflection repeats if the padding is longer than the wave, as ours does.
@pytest.mark.parametrize("num_samples", [1, 2, 100, 512, 513, 700, 1600])
@pytest.mark.filterwarnings("ignore:n_fft=1024 is too large")
def test_clips_shorter_than_the_window_are_reflected_repeatedly(num_samples):
    config = FrontEndConfig()
    wave = np.random.default_rng(1).uniform(-0.5, 0.5, num_samples)
    ours = LogMel(config)(torch.from_numpy(wave[None]).float())[0]
    assert ours.shape == (64, num_samples // 160 + 1)
    np.testing.assert_allclose(ours, reference(wave, config), atol=1e-4, rtol=0)


def test_filters_are_librosas():
    config = FrontEndConfig()
    theirs = librosa.filters.mel(sr=16_000, n_fft=1024, n_mels=64, fmin=60, fmax=7800, dtype=np.float64)
    # atol: our filters are float32, and the largest value is 0.02.
    np.testing.assert_allclose(mel_filters(config), theirs.T, atol=1e-7, rtol=0)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100])  # torchaudio rounds half of an odd rate
@pytest.mark.parametrize("num_mels", [1, 20, 64, 128])
@pytest.mark.parametrize("f_min", [0.0, 60.0, 1500.0])
def test_filters_are_torchaudios_bit_by_bit(rate, num_mels, f_min):
    functional = pytest.importorskip(
        "torchaudio.functional", exc_type=Exception
    )  # torchaudio may be built for another CUDA than torch
    config = FrontEndConfig(sample_rate=rate, num_mels=num_mels, f_min=f_min, f_max=rate * 0.49)
    bins = config.n_fft // 2 + 1
    scale = {"norm": "slaney", "mel_scale": "slaney"}
    theirs = functional.melscale_fbanks(bins, f_min, config.f_max, num_mels, rate, **scale)
    assert torch.equal(mel_filters(config), theirs)


def test_digital_silence_is_the_log_of_the_floor():
    log_mel = LogMel(FrontEndConfig(floor=1e-6))(torch.zeros(1, 3200, dtype=torch.int16))
    torch.testing.assert_close(log_mel, torch.full_like(log_mel, float(np.log(1e-6))))


def test_int16_and_float_agree_and_clips_do_not_touch_each_other():
    pcm = torch.from_numpy((sounds(4000, 16_000) * 32767).astype(np.int16))
    log_mel = LogMel(FrontEndConfig())
    together = log_mel(pcm)
    torch.testing.assert_close(together, log_mel(pcm.float() / 32768), atol=0, rtol=0)
    torch.testing.assert_close(together[2:3], log_mel(pcm[2:3]), atol=1e-5, rtol=0)


def test_normalised_by_the_statistics_given():
    pcm = torch.from_numpy((sounds(4000, 16_000) * 32767).astype(np.int16))
    plain = LogMel(FrontEndConfig())(pcm)
    torch.testing.assert_close(LogMel(FrontEndConfig(), mean=-7.0, std=4.0)(pcm), (plain + 7) / 4)


def test_autocast_does_not_reach_the_spectrogram():
    wave = torch.from_numpy(sounds(4000, 16_000)).float()
    log_mel = LogMel(FrontEndConfig())
    with torch.autocast("cpu", torch.bfloat16):
        inside = log_mel(wave)
    torch.testing.assert_close(inside, log_mel(wave), atol=0, rtol=0)


@pytest.mark.parametrize("wave", [torch.zeros(10), torch.zeros(1, 0), torch.zeros(1, 10, dtype=torch.int32)])
def test_other_shapes_and_types_are_refused(wave):
    with pytest.raises(ValueError, match=r"give \(batch, samples\)"):
        LogMel(FrontEndConfig())(wave)


def test_a_constant_data_set_is_refused():
    with pytest.raises(ValueError, match="std=0"):
        LogMel(FrontEndConfig(), std=0.0)
