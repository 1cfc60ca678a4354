"""The protocol of an evaluation: one file, identified by its hash, that applies to every row of a table."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources

from pydantic import ValidationError

from unfused_ray import storage
from unfused_ray.config import Config, CropConfig, PositiveFloat, PositiveInt, Readout, Seed, ShortClips, explain
from unfused_ray.evaluation.probes.probe import ProbesConfig

FILE = "protocol.toml"


class BootstrapConfig(Config):
    """Settings of intervals from random draws of groups of test clips."""

    replicates: PositiveInt
    """Number of bootstrap samples."""
    seed: Seed
    """Seed of the draws."""


class ProtocolConfig(Config):
    """Settings for reading clips and scoring vectors; ``protocol.toml`` explains each field."""

    crop_seconds: PositiveFloat
    short_clips: ShortClips
    readout: Readout
    probes: ProbesConfig
    bootstrap: BootstrapConfig

    @property
    def crop(self) -> CropConfig:
        """Length and rule to which shorter clips are completed."""
        return CropConfig(seconds=self.crop_seconds, short_clips=self.short_clips)


@dataclass(frozen=True)
class Protocol:
    """A protocol file."""

    config: ProtocolConfig
    text: bytes

    @property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        return storage.sha256(self.text)


def load_protocol(uri: str = "") -> Protocol:
    """Read a protocol file, by default the package's own.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not TOML, or a field is missing, unknown or impossible; names the field.
    """
    text = storage.read_bytes(uri) if uri else resources.files(__package__).joinpath(FILE).read_bytes()
    try:
        return Protocol(ProtocolConfig(**tomllib.loads(text.decode())), text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"protocol={uri} is no TOML file: {error}") from error
    except ValidationError as error:
        raise ValueError(f"protocol={uri or FILE} cannot be used:\n{explain(error)}") from error
