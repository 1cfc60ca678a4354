"""Contenders of the benchmarks: the field's own way to do the same, written as its public scripts are.

The project uses nothing from here. A torch Dataset decodes a file with librosa, takes a random crop and makes the
log-mel and its augmented views item by item. The encoder is plain eager torch. An epoch embeds every clip in a separate
pass, clusters with faiss, and trains on the labels.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import librosa
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from unfused_ray.config import AugmentConfig, CropConfig, FrontEndConfig

MIXUP_MEMORY = 2048
"""Number of past log-mels that a process mixes with (BYOL-A, arXiv 2103.06695)."""


class PlainEncoder(nn.Module):
    """AudioNTT2020 as its publications write it: contiguous NCHW, ReLU before the pool.

    The project's ``AudioNTT2020`` has the same weights and the same values.
    """

    def __init__(self, channels: int = 64, width: int = 2048, num_mels: int = 64, dropout: float = 0.3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for in_channels in (1, channels, channels):
            layers += [
                nn.Conv2d(in_channels, channels, kernel_size=3, padding=1),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        self.features = nn.Sequential(*layers)
        self.fc = nn.Sequential(
            nn.Linear(channels * num_mels // 8, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.ReLU(),
        )

    def forward(self, log_mel_BFT: Tensor) -> Tensor:
        """Embed clips: (B, F, T) → (B, width)."""
        features = self.features(log_mel_BFT.unsqueeze(1))
        frames = self.fc(features.permute(0, 3, 2, 1).flatten(2))
        return frames.max(1).values + frames.mean(1)


class PlainModel(nn.Module):
    """The encoder and the projection head, which is the part that is clustered and trained on."""

    def __init__(self, encoder: PlainEncoder, width: int = 2048, hidden: int = 2048, dim: int = 128) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = nn.Sequential(
            nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, dim)
        )

    def forward(self, log_mel_BFT: Tensor) -> Tensor:
        """Project to unit vectors: (B, F, T) → (B, dim), L2-normalised."""
        return F.normalize(self.projector(self.encoder(log_mel_BFT)), dim=1)


@dataclass(frozen=True)
class FrontEnd:
    """Turns a file into the encoder's input, with the project's own settings."""

    log_mel: FrontEndConfig
    crop: CropConfig
    augment: AugmentConfig
    mean: float
    std: float

    def load(self, path: Path) -> np.ndarray:
        """Decode a file as a whole and take a random crop: (samples,) float32."""
        wave, _ = librosa.load(path, sr=self.log_mel.sample_rate)
        length = self.crop.num_samples(self.log_mel.sample_rate)
        if len(wave) <= length:
            return np.resize(wave, length)
        start = random.randint(0, len(wave) - length)
        return wave[start : start + length]

    def normalised(self, wave: np.ndarray) -> Tensor:
        """Compute the normalised log-mel of a crop: (F, T)."""
        config = self.log_mel
        power = librosa.feature.melspectrogram(
            y=wave,
            sr=config.sample_rate,
            n_fft=config.n_fft,
            hop_length=config.hop,
            n_mels=config.num_mels,
            fmin=config.f_min,
            fmax=config.f_max,
        )
        return torch.from_numpy((np.log(np.maximum(power, config.floor)) - self.mean) / self.std).float()


class Augmentation:
    """One augmented view of one clip: mixup with a memory of past clips, random resize crop, linear fader."""

    def __init__(self, config: AugmentConfig) -> None:
        self.config = config
        self.memory: deque[Tensor] = deque(maxlen=MIXUP_MEMORY)

    def __call__(self, log_mel_FT: Tensor) -> Tensor:
        """Augment a log-mel: (F, T) → the same shape."""
        return self._fader(self._resize_crop(self._mixup(log_mel_FT)))

    def _mixup(self, log_mel_FT: Tensor) -> Tensor:
        if self.config.mixup == 0:
            return log_mel_FT
        mixed = log_mel_FT
        if self.memory:
            share = self.config.mixup * random.random()
            mixed = torch.log((1 - share) * log_mel_FT.exp() + share * random.choice(self.memory).exp())
        self.memory.append(log_mel_FT)
        return mixed

    def _resize_crop(self, log_mel_FT: Tensor) -> Tensor:
        bands, frames = log_mel_FT.shape
        height, width = (int(size * s) for size, s in zip((bands, frames), self.config.virtual_crop, strict=True))
        canvas = torch.zeros(1, 1, height, width)
        top, left = (height - bands) // 2, (width - frames) // 2
        canvas[0, 0, top : top + bands, left : left + frames] = log_mel_FT
        crop_height = min(max(int(bands * random.uniform(*self.config.freq_scale)), 1), height)
        crop_width = min(max(int(frames * random.uniform(*self.config.time_scale)), 1), width)
        top, left = random.randint(0, height - crop_height), random.randint(0, width - crop_width)
        crop = canvas[:, :, top : top + crop_height, left : left + crop_width]
        return F.interpolate(crop, size=(bands, frames), mode="bicubic", align_corners=True)[0, 0]

    def _fader(self, log_mel_FT: Tensor) -> Tensor:
        if self.config.fader == 0:
            return log_mel_FT
        first, last = (random.uniform(-self.config.fader, self.config.fader) for _ in range(2))
        return log_mel_FT + torch.linspace(first, last, log_mel_FT.shape[1])


class FileClips(Dataset[tuple[Tensor, int]]):
    """Files as (views (V, F, T), number of the file); with ``num_views`` 0, the plain log-mel, (1, F, T)."""

    def __init__(self, files: Sequence[Path], front_end: FrontEnd, num_views: int) -> None:
        self.files = list(files)
        self.front_end = front_end
        self.num_views = num_views
        self.augmentation = Augmentation(front_end.augment)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        log_mel = self.front_end.normalised(self.front_end.load(self.files[number]))
        views = [self.augmentation(log_mel) for _ in range(self.num_views)] or [log_mel]
        return torch.stack(views), number


def make_loader(
    files: Sequence[Path], front_end: FrontEnd, num_views: int, batch: int, processes: int
) -> DataLoader[tuple[Tensor, int]]:
    """Make a shuffled DataLoader that yields whole batches only."""
    return DataLoader(
        FileClips(files, front_end, num_views),
        batch_size=batch,
        shuffle=True,
        drop_last=True,
        num_workers=processes,
        persistent_workers=processes > 0,
    )


class DecarLoop:
    """DECAR's epoch, with the projections' centroids as prototypes: embed every clip, cluster, train on the labels.

    Its parts are timed separately, so that a few batches suffice to tell how long an epoch takes.
    """

    def __init__(
        self, files: Sequence[Path], front_end: FrontEnd, clusters: int, batch: int, processes: int, iterations: int
    ) -> None:
        self.num_clips = len(files)
        self.clusters = clusters
        self.iterations = iterations
        self.model = PlainModel(PlainEncoder(num_mels=front_end.log_mel.num_mels))
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        self.embed_loader = make_loader(files, front_end, 0, batch, processes)
        self.train_loader = make_loader(files, front_end, 2, batch, processes)

    def embed(self, num_batches: int) -> float:
        """Measure seconds per clip of the pass that embeds every clip, over ``num_batches`` batches after a first."""
        self.model.eval()
        with torch.no_grad():
            return _seconds_a_clip(
                (len(self.model(views_BVFT[:, 0])) for views_BVFT, _ in self.embed_loader), num_batches
            )

    def cluster(self, embeddings_ND: np.ndarray) -> float:
        """Measure the seconds of k-means over all clips and of their assignment."""
        started = time.perf_counter()
        kmeans = faiss.Kmeans(
            embeddings_ND.shape[1],
            self.clusters,
            niter=self.iterations,
            spherical=True,
            max_points_per_centroid=len(embeddings_ND),
        )
        kmeans.train(embeddings_ND)
        kmeans.index.search(embeddings_ND, 1)
        return time.perf_counter() - started

    def train(self, labels_N: Tensor, prototypes_KD: Tensor, num_batches: int) -> float:
        """Measure seconds per clip of training on the labels, over ``num_batches`` batches after a first."""
        self.model.train()
        steps = (
            self._step(views_BVFT, labels_N[number_B], prototypes_KD) for views_BVFT, number_B in self.train_loader
        )
        return _seconds_a_clip(steps, num_batches)

    def _step(self, views_BVFT: Tensor, labels_B: Tensor, prototypes_KD: Tensor) -> int:
        batch, views = views_BVFT.shape[:2]
        logits = self.model(views_BVFT.flatten(0, 1)) @ prototypes_KD.T / 0.1
        loss = F.cross_entropy(logits, labels_B.repeat_interleave(views))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        loss.item()
        return batch


def _seconds_a_clip(batches: Iterator[int], num_batches: int) -> float:
    """Time ``num_batches`` batches after a first one; ``batches`` yields the number of clips of each."""
    next(batches)
    clips, started = 0, time.perf_counter()
    for _ in range(num_batches):
        clips += next(batches)
    return (time.perf_counter() - started) / clips
