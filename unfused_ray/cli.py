"""The one parser: a recipe, then any field of its configuration; and how every job ends."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import tyro
from rich.console import Console
from rich.logging import RichHandler

from unfused_ray import cluster, recipes, storage
from unfused_ray.config import Config
from unfused_ray.data.ingest.prepare import prepare
from unfused_ray.training.pretrain import check, describe, pretrain
from unfused_ray.training.run import RunInUseError

logger = logging.getLogger(__name__)
T = TypeVar("T", bound=Config)

_FLAGS = {
    "--print-config": "print the full configuration as JSON and end",
    "--dry-run": "check configuration, data and resources, say what would be done, and end",
}


@dataclass(frozen=True)
class Options:
    """What a job does with its configuration."""

    print_config: bool
    dry_run: bool


def parse(recipes: Mapping[str, tuple[str, T]], description: str, default: str | None = None) -> tuple[T, Options]:
    """Read a recipe's name and the fields that differ from it off the command line.

    A configuration that cannot work ends the process with code 2, naming field, value and rule.

    Args:
        recipes: by name, a line of help and a full configuration.
        description: what the job does, for ``--help``.
        default: the recipe that is meant where none is named.
    """
    arguments = [argument for argument in sys.argv[1:] if argument not in _FLAGS]
    options = Options("--print-config" in sys.argv, "--dry-run" in sys.argv)
    asks_help = bool({"-h", "--help"} & set(arguments))
    if default and not asks_help and (not arguments or arguments[0] not in recipes):
        arguments = [default, *arguments]
    flags = "\n".join(f"{flag}: {text}." for flag, text in _FLAGS.items())
    config = tyro.extras.overridable_config_cli(
        dict(recipes), description=f"{description}\n\nEverywhere:\n{flags}", args=arguments
    )
    return config, options


def absolute_paths(config: T, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> T:
    """A configuration whose paths no longer depend on the working directory.

    Raises:
        ValueError: an output is relative inside a submitted Ray job, whose working directory is a temporary copy.
    """
    update: dict[str, str | tuple[str, ...]] = {}
    for name in inputs + outputs:
        value = getattr(config, name)
        if name in outputs and value and _is_relative(value) and _in_submitted_job():
            raise ValueError(
                f"{name}={value} is relative, but a submitted job runs in a temporary copy of its working directory: "
                "give an absolute path or a URI"
            )
        if isinstance(value, tuple):
            update[name] = tuple(storage.absolute(part) for part in value)
        elif value:
            update[name] = storage.absolute(value)
    return config.model_copy(update=update)


def prepare_job() -> int:
    """What ``jobs/prepare.py`` runs."""
    config, options = parse(recipes.PREPARE, "Turn any audio into shards for training.", default="default")
    config = absolute_paths(config, inputs=(), outputs=("output",))
    if options.print_config:
        return _print_config(config)
    prepare(config, dry_run=options.dry_run)
    return 0


def pretrain_job() -> int:
    """What ``jobs/pretrain.py`` runs."""
    config, options = parse(recipes.PRETRAIN, "Pre-train an encoder with DECAR-v2 on prepared shards.")
    config = absolute_paths(config, inputs=("data", "init_from", "fork"), outputs=("output",))
    if options.print_config:
        return _print_config(config)
    if options.dry_run:
        with cluster.session():
            Console().print(describe(config))
        return 0
    status = pretrain(config)
    # Here, because scikit-learn and matplotlib take seconds to import, and training should not start later for it.
    from unfused_ray.evaluation import pictures
    from unfused_ray.evaluation.summary import summary

    run = check(config)
    if status.state == "finished":
        logger.info("drawing pictures")
        pictures.write(run.run.uri)
    Console().print(summary(run.run.uri))
    where = run.tracking_uri
    watch = where if where.startswith("http") else f"mlflow ui --backend-store-uri {where}"
    Console().print(f"the curves: {watch}", soft_wrap=True, highlight=False)
    return {"finished": 0, "stopped": 128 + signal.SIGTERM}.get(status.state, 1)


def main(job: Callable[[], int]) -> None:
    """Run a job and end the process with its exit code; a user's error is one message, not a traceback."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(message)s",
        datefmt="%H:%M:%S",
        handlers=[RichHandler(console=Console(stderr=True), show_path=False, show_level=False)],
    )
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # which build of faiss it found
    try:
        code = job()
    except (ValueError, FileNotFoundError, RunInUseError) as error:
        code = _fail(str(error))
        logger.debug("", exc_info=True)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    sys.exit(code)


def _print_config(config: Config) -> int:
    sys.stdout.write(config.model_dump_json(indent=2) + "\n")
    return 0


def _fail(message: str) -> int:
    Console(stderr=True).print(f"[bold red]error:[/] {message}", highlight=False, soft_wrap=True)
    return 2


def _is_relative(uri: str) -> bool:
    return storage.is_local(uri) and not Path(uri).expanduser().is_absolute()


def _in_submitted_job() -> bool:
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
