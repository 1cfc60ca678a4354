"""Settings of the front end, of crops and of augmentation."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from unfused_ray.config.base import Config, NonNegativeFloat, PositiveFloat, PositiveInt

ShortClips = Literal["centre", "tile"]
"""Completion of a clip that is too short: silence around it (centre), or the clip repeated (tile)."""


class FrontEndConfig(Config):
    """Conversion of a waveform to a log-mel spectrogram (BYOL-A, arXiv 2103.06695 sec. IV; settings of the LAPE
    code)."""

    sample_rate: Annotated[int, Field(ge=1000, le=192_000)] = 16_000
    """Sample rate of the shards and of everything that reads them, in Hz."""
    n_fft: Annotated[int, Field(ge=16)] = 1024
    """Length of the Fourier transform and of its Hann window, in samples."""
    hop: PositiveInt = 160
    """Distance from one frame to the next, in samples."""
    num_mels: PositiveInt = 64
    """Number of mel bands, on the Slaney scale with Slaney normalisation (librosa's)."""
    f_min: NonNegativeFloat = 60.0
    """Lower edge of the lowest band, in Hz."""
    f_max: PositiveFloat = 7800.0
    """Upper edge of the highest band, in Hz."""
    floor: PositiveFloat = 1.2e-7
    """Smallest power: lower ones are raised to it before the natural logarithm, so digital silence has this value."""

    @model_validator(mode="after")
    def _bands_fit(self) -> Self:
        if not self.f_min < self.f_max <= self.sample_rate / 2:
            raise ValueError(
                f"f_min={self.f_min:g} Hz and f_max={self.f_max:g} Hz must satisfy f_min < f_max <= sample_rate/2 "
                f"= {self.sample_rate / 2:g} Hz"
            )
        if self.hop > self.n_fft:
            raise ValueError(f"hop={self.hop} must not exceed n_fft={self.n_fft}: samples would be skipped")
        return self

    def num_frames(self, num_samples: int) -> int:
        """Return the number of frames of a centred spectrogram of ``num_samples`` samples."""
        return (num_samples - self.n_fft % 2) // self.hop + 1


class CropConfig(Config):
    """Crops, the parts of a clip that training views are made of."""

    seconds: PositiveFloat = 0.95
    """Length of a crop, in seconds. A longer clip is cut at a random position."""
    short_clips: ShortClips = "tile"
    """How a clip shorter than the crop fills it: "tile" repeats the clip, "centre" puts silence around it, as the
    papers' code does. The length of that silence would tell clips apart. Evaluation tiles too, by its default protocol
    (docs/log.md)."""
    num_crops: Annotated[int, Field(ge=1, le=2)] = 1
    """Number of crops of a clip: 1 is shared by both views (BYOL-A), 2 gives each view its own (COLA)."""

    def num_samples(self, sample_rate: int) -> int:
        """Return the length of a crop in samples."""
        return round(self.seconds * sample_rate)


class AugmentConfig(Config):
    """Augmentation of a view, a normalised log-mel (BYOL-A, arXiv 2103.06695 sec. III-B), in the order of the
    settings."""

    mixup: Annotated[float, Field(ge=0, lt=1)] = 0.4
    """Largest share of another clip of the block that is mixed into a clip, λ ~ U(0, mixup) (log-mixup-exp; 0.4 in
    BYOL-A v1 and LAPE); 0 mixes nothing."""
    k_mix: Annotated[int, Field(ge=0)] = 0
    """Number of clusters into which k-mix divides the clips of a block, by their mean log-mel (SLICER: 4). Each clip is
    mixed with one from the cluster farthest from its own; 0 mixes with any clip of the block."""
    virtual_crop: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.5)
    """Size of the canvas of the random resize crop, relative to the input, in frequency and in time."""
    freq_scale: tuple[PositiveFloat, PositiveFloat] = (0.6, 1.5)
    """Smallest and largest height of the random resize crop, relative to the input."""
    time_scale: tuple[PositiveFloat, PositiveFloat] = (0.6, 1.5)
    """Smallest and largest width of the random resize crop, relative to the input."""
    fader: NonNegativeFloat = 0.0
    """Largest gain at either end of the random linear fader (BYOL-A v2), in normalised units; 0 is off."""

    @model_validator(mode="after")
    def _ranges_ordered(self) -> Self:
        for name in ("freq_scale", "time_scale"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}=({low:g}, {high:g}) must be (low, high) with low <= high")
        if min(self.virtual_crop) < 1:
            raise ValueError(f"virtual_crop={self.virtual_crop} must be at least 1 in both directions")
        if self.k_mix == 1:
            raise ValueError("k_mix=1 leaves only a clip's own cluster to mix with: give 0 (off), or 2 and more")
        if self.k_mix and not self.mixup:
            raise ValueError(f"k_mix={self.k_mix} chooses what a clip is mixed with, but mixup=0 mixes nothing")
        return self
