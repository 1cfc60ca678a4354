"""Front end, crops and augmentation."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from unfused_ray.config.base import Config, NonNegativeFloat, PositiveFloat, PositiveInt


class FrontEndConfig(Config):
    """From waveform to log-mel spectrogram (BYOL-A, arXiv 2103.06695 sec. IV; settings as in the LAPE code)."""

    sample_rate: Annotated[int, Field(ge=1000, le=192_000)] = 16_000
    """Samples per second of the shards and of everything after them."""
    n_fft: Annotated[int, Field(ge=16)] = 1024
    """Length of the Fourier transform and of its Hann window, in samples."""
    hop: PositiveInt = 160
    """Samples from one frame to the next."""
    num_mels: PositiveInt = 64
    """Mel bands, on the Slaney scale with Slaney normalisation (librosa's)."""
    f_min: NonNegativeFloat = 60.0
    """Lower edge of the lowest band, in Hz."""
    f_max: PositiveFloat = 7800.0
    """Upper edge of the highest band, in Hz."""
    floor: PositiveFloat = 1.2e-7
    """Smallest power before the natural logarithm; it decides what digital silence looks like."""

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
        """Frames of a centred spectrogram of ``num_samples`` samples."""
        return num_samples // self.hop + 1


class CropConfig(Config):
    """What part of a clip a training view sees."""

    seconds: PositiveFloat = 0.95
    """Length of a crop. A longer clip is cut at a random position."""
    short_clips: Literal["centre", "tile"] = "tile"
    """A clip shorter than the crop is repeated to fill it, or centred in silence (the sources' rule). Silence would be
    heard as the clip's length; one rule for training and evaluation (docs/log.md)."""
    num_crops: Annotated[int, Field(ge=1, le=2)] = 1
    """Crops per clip: 1 is augmented once per view (BYOL-A), 2 gives each view a crop of its own (COLA)."""

    def num_samples(self, sample_rate: int) -> int:
        """Length of a crop in samples."""
        return round(self.seconds * sample_rate)


class AugmentConfig(Config):
    """One augmented view of a normalised log-mel (BYOL-A, arXiv 2103.06695 sec. III-B, in this order)."""

    mixup: Annotated[float, Field(ge=0, lt=1)] = 0.4
    """Log-mixup-exp: mixing share λ ~ U(0, mixup) of another clip of the block (0.4 in BYOL-A v1 and LAPE); 0 is
    off."""
    k_mix: Annotated[int, Field(ge=0)] = 0
    """Clusters of the block's clips by their mean log-mel, of which the one farthest from a clip's own gives the clip
    it is mixed with (k-mix, SLICER: 4); 0 mixes with any."""
    virtual_crop: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.5)
    """Random resize crop: size of the virtual canvas relative to the input, in frequency and in time."""
    freq_scale: tuple[PositiveFloat, PositiveFloat] = (0.6, 1.5)
    """Random resize crop: range of the crop's height relative to the input's."""
    time_scale: tuple[PositiveFloat, PositiveFloat] = (0.6, 1.5)
    """Random resize crop: range of the crop's width relative to the input's."""
    fader: NonNegativeFloat = 0.0
    """Random linear fader (BYOL-A v2): gain at either end ~ U(-fader, fader), in normalised units; 0 is off."""

    @model_validator(mode="after")
    def _ranges_ordered(self) -> Self:
        for name in ("freq_scale", "time_scale"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}=({low:g}, {high:g}) must be (low, high) with low <= high")
        if min(self.virtual_crop) < 1:
            raise ValueError(f"virtual_crop={self.virtual_crop} must be at least 1 in both directions")
        if self.k_mix == 1:
            raise ValueError("k_mix=1 has no cluster to mix with but a clip's own: give 0 (off), or 2 and more")
        if self.k_mix and not self.mixup:
            raise ValueError(f"k_mix={self.k_mix} chooses what a clip is mixed with, but mixup=0 mixes nothing")
        return self
