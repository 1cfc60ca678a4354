"""Scores log-mel statistics alone on the embedded recordings: the floor an encoder has to beat.

    python recordings/baseline.py

Per clip the mean and the standard deviation over time of each log-mel band, standardised, into multinomial logistic
regression; its strength C is chosen on valid, test is read once. Needs the extra ``dev`` (librosa).
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import librosa
import numpy as np
import soundfile as sf
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from unfused_ray.config import FrontEndConfig

STRENGTHS = tuple(10.0**exponent for exponent in range(-5, 2))  # the grid of the linear evaluation


def read_tar(path: Path) -> Iterator[tuple[dict[str, str], np.ndarray]]:
    """(JSON, float32 samples) of each clip of a tar."""
    with tarfile.open(path) as tar:
        members = {member.name: member for member in tar}
        for name in members:
            if name.endswith(".json"):
                about, audio = tar.extractfile(name), tar.extractfile(name.removesuffix("json") + "ogg")
                assert about is not None and audio is not None  # build.py writes both, as regular files
                yield json.load(about), sf.read(io.BytesIO(audio.read()), dtype="float32")[0]


def log_mel_statistics(wave: np.ndarray, front_end: FrontEndConfig) -> np.ndarray:
    """Mean and standard deviation over time of every band, shape (2 * num_mels,)."""
    power = librosa.feature.melspectrogram(
        y=wave,
        sr=front_end.sample_rate,
        n_fft=front_end.n_fft,
        hop_length=front_end.hop,
        pad_mode="reflect",
        n_mels=front_end.num_mels,
        fmin=front_end.f_min,
        fmax=front_end.f_max,
    )
    log_mel = np.log(np.maximum(power, front_end.floor))
    return np.concatenate([log_mel.mean(axis=1), log_mel.std(axis=1)])


def evaluate(path: Path) -> str:
    """One row of the table in README.md: C, accuracy on valid and test, chance (the test's largest class)."""
    front_end = FrontEndConfig()
    clips = list(read_tar(path))
    features = np.stack([log_mel_statistics(wave, front_end) for _, wave in clips])
    labels = np.array([about["label"] for about, _ in clips])
    splits = np.array([about["split"] for about, _ in clips])

    def accuracy(model: Pipeline, split: str) -> float:
        return 100 * model.score(features[splits == split], labels[splits == split])

    train = splits == "train"
    models = {
        strength: make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000))
        for strength in STRENGTHS
    }
    for model in models.values():
        model.fit(features[train], labels[train])
    strength = max(models, key=lambda strength: accuracy(models[strength], "valid"))
    valid, test = (accuracy(models[strength], split) for split in ("valid", "test"))
    test_labels = labels[splits == "test"]
    chance = 100 * max(Counter(test_labels.tolist()).values()) / len(test_labels)
    return f"| {path.stem} | {len(set(labels))} | {strength:g} | {valid:.1f} | {test:.1f} | {chance:.1f} |"


def main() -> None:
    """Print the baseline of both tasks."""
    sys.stdout.write("| task | classes | C | valid % | test % | chance % |\n|---|--:|--:|--:|--:|--:|\n")
    for path in sorted(Path(__file__).parent.glob("*.tar")):
        sys.stdout.write(evaluate(path) + "\n")


if __name__ == "__main__":
    main()
