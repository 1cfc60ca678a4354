"""Checks and resolves the paths of a configuration, before a job looks at anything else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from unfused_ray import storage
from unfused_ray.config import Config, idle_fields

T = TypeVar("T", bound=Config)


def check(config: T) -> T:
    """Return the configuration of a job with absolute paths.

    Raises:
        ValueError: a field that the job needs is empty, a changed field would have no effect, or as in :func:`resolve`.
    """
    resolved = resolve(config)  # first, because no later message may show a secret
    for field, value, why in idle_fields(config):
        raise ValueError(f"{field}={value} has no effect {why}: leave it out")
    for field, remedy in config.required.items():
        if not (value := config.get(field)):
            raise ValueError(f"{field}={value!r} names nothing: give {remedy}, --{field.replace('_', '-')} …")
    return resolved


def resolve(config: T) -> T:
    """Return the configuration with paths that no longer depend on the working directory.

    Raises:
        ValueError: a URI holds credentials, or an output is relative inside a submitted Ray job, whose working
            directory is a temporary copy; names the field.
    """
    for field, value in config.flat().items():
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str) and (shown := storage.masked(text)) != text:
                raise ValueError(
                    f"{field}={shown} holds credentials, which a run would keep in its folder: put them into the "
                    "environment instead (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, MLFLOW_TRACKING_USERNAME and "
                    "MLFLOW_TRACKING_PASSWORD)"
                )
    for field in _fields(config, "outputs"):
        value = config.get(field)
        if value and _is_relative(value) and _is_submitted_job():
            raise ValueError(
                f"{field}={value} is relative, but a submitted job runs in a temporary copy of its working directory: "
                "give an absolute path or a URI"
            )
    changes: dict[str, str | tuple[str, ...]] = {}
    for field in (*_fields(config, "inputs"), *_fields(config, "outputs")):
        value = config.get(field)
        if isinstance(value, tuple):
            changes[field] = tuple(storage.absolute(path) for path in value)
        elif value:
            changes[field] = storage.absolute(value)
    return config.replace(changes)


def _fields(config: Config, kind: str) -> Iterator[str]:
    """Yield the dotted names of the fields that are ``inputs`` or ``outputs``, also in nested configurations."""
    yield from getattr(config, kind)
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Config):
            yield from (f"{name}.{inner}" for inner in _fields(value, kind))


def _is_relative(uri: str) -> bool:
    return storage.is_local(uri) and not Path(uri).expanduser().is_absolute()


def _is_submitted_job() -> bool:
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
