"""Published encoders recognise what they were trained on, and a clip's vector does not depend on its batch."""

from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from unfused_ray.evaluation import peers
from unfused_ray.evaluation.embedders import Embedder, load_embedder
from unfused_ray.evaluation.peers import PitchEncoder, SpeakerEncoder, SpeechEmbedding

NAMES = ("SpeechEmbedding", "SpeakerEncoder", "PitchEncoder")


def tone(hertz: float, seconds: float, sample_rate: int) -> np.ndarray:
    """Return a tone of three partials: (samples,) float32."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    return sum(0.1 / k * np.sin(2 * np.pi * k * hertz * time) for k in (1, 2, 3)).astype(np.float32)


@torch.inference_mode()
def embed(embedder: Embedder, *waves: np.ndarray) -> np.ndarray:
    """Embed clips of one length."""
    return np.asarray(embedder.embed(np.stack(waves)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seconds", [0.4, 1.0, 3.1])
def test_a_vector_a_clip_whatever_its_batch(name: str, seconds: float) -> None:
    embedder = load_embedder(f"unfused_ray.evaluation.peers:{name}")
    first, second = (tone(hertz, seconds, embedder.sample_rate) for hertz in (220, 300))
    both = embed(embedder, first, second)
    assert both.shape[0] == 2
    assert np.isfinite(both).all()
    np.testing.assert_allclose(embed(embedder, second)[0], both[1], atol=1e-5)
    assert abs(both[0] - both[1]).max() > 1e-3


def test_speech_embeddings_of_windows_and_their_maximum_and_mean() -> None:
    embedder = SpeechEmbedding()
    wave = np.concatenate([tone(hertz, 0.5, 16_000) for hertz in (150, 220, 300)])
    found = embed(embedder, wave)[0]
    bands = embedder._bands.run(None, {"input": wave[None] * np.float32(32768)})[0].squeeze() / 10 + 2
    windows = [
        embedder._network.run(None, {"input_1": bands[None, start : start + 76, :, None]})[0].ravel()
        for start in range(0, len(bands) - 75, 8)
    ]
    assert len(windows) > 5
    np.testing.assert_allclose(found, np.concatenate([np.max(windows, 0), np.mean(windows, 0)]), atol=1e-4)


def test_the_speaker_encoder_raises_quiet_clips_to_its_level_and_leaves_loud_ones() -> None:
    embedder = SpeakerEncoder()
    wave = tone(150, 1.6, 16_000)
    wave *= embedder.level / np.sqrt((wave**2).mean())
    quiet, level, loud, other = embed(embedder, 0.1 * wave, wave, 10 * wave, tone(300, 1.6, 16_000))
    assert np.linalg.norm(level) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(quiet, level, atol=1e-4)
    assert abs(loud - level).max() > 1e-2
    assert level @ other < 0.95


def test_vectors_of_the_speaker_encoder_from_before_loud_clips_stayed_are_not_used() -> None:
    """Stored vectors and cells are keyed by the version; those had "Resemblyzer 0.1.4"."""
    assert SpeakerEncoder.version != "Resemblyzer 0.1.4"


@pytest.mark.parametrize("note", [57, 64, 69])
def test_the_pitch_encoder_hears_the_note(note: int) -> None:
    """In the mean, numbers 0 to 87 are onsets of piano keys from MIDI note 21 on, 88 to 175 are sounding notes."""
    wave = tone(440 * 2 ** ((note - 69) / 12), 3.0, PitchEncoder.sample_rate)
    mean = embed(PitchEncoder(), wave)[0, 440:]
    assert int(mean[88:176].argmax()) == note - 21


def test_weights_that_are_missing_or_others_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Installed:
        def locate_file(self, path: str) -> Path:
            return tmp_path / path

    monkeypatch.setattr(metadata, "distribution", lambda name: Installed())
    with pytest.raises(ValueError, match=r"there is no resemblyzer/pretrained.pt: install the .* with make peers"):
        SpeakerEncoder()
    (tmp_path / "resemblyzer").mkdir()
    (tmp_path / "resemblyzer" / "pretrained.pt").write_bytes(b"others")
    with pytest.raises(ValueError, match=r"resemblyzer/pretrained.pt is not the known version"):
        SpeakerEncoder()


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(peers, "import_module", missing)
    with pytest.raises(ValueError, match="onnxruntime is missing: install the published encoders with make peers"):
        PitchEncoder()
