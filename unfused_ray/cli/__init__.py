"""The one parser: a recipe, then any field of its configuration; and how every job ends.

Each job imports what it runs by itself, because torch, Ray Data, scikit-learn and matplotlib take a second or more:
neither ``--help`` nor another job should wait for them.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, get_type_hints

import tyro
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from unfused_ray import cluster, logs, memory, recipes, storage
from unfused_ray.config import Config, TrainingConfig, explain
from unfused_ray.lease import InUseError
from unfused_ray.runs.start_times import StartTimes, process_started
from unfused_ray.runs.status import Status
from unfused_ray.tracking.mlflow import TrackedRun, log_results

if TYPE_CHECKING:
    from unfused_ray.sweep.space import Space

logger = logging.getLogger(__name__)
T = TypeVar("T", bound=Config)

_FLAGS = {
    "--print-config": "print the full configuration as JSON and end",
    "--dry-run": "check configuration, data and resources, say what would be done and how long a training takes",
}


@dataclass(frozen=True)
class Options:
    """What a job does with its configuration."""

    print_config: bool
    dry_run: bool


def parse(recipes: Mapping[str, tuple[str, T]], description: str, default: str | None = None) -> tuple[T, Options]:
    """Read a recipe's name and the fields that differ from it off the command line.

    A flag that does not exist, or whose value is of another type, ends the process with code 2, as ``--help`` does
    with code 0.

    Args:
        recipes: by name, a line of help and a full configuration.
        description: what the job does, for ``--help``.
        default: the recipe that is meant where none is named.

    Raises:
        ValueError: no recipe is named, the configuration cannot work, or a URI of it holds credentials; names field,
            value and rule.
    """
    arguments = [argument for argument in sys.argv[1:] if argument not in _FLAGS]
    options = Options("--print-config" in sys.argv, "--dry-run" in sys.argv)
    if arguments and arguments[0].endswith(".json"):
        name = arguments.pop(0)
        recipes = {**recipes, name: ("a recipe of your own", _from_file(name, type(next(iter(recipes.values()))[1])))}
    elif arguments and arguments[0] in recipes:
        name = arguments.pop(0)
    elif default or {"-h", "--help"} & set(arguments):
        name = default or next(iter(recipes))
    else:
        given = f"{arguments[0]} is no recipe" if arguments else "no recipe is named"
        raise ValueError(f"{given}: start with one of {', '.join(recipes)} (--help says more)")
    config = recipes[name][1]
    values = tyro.cli(
        type(config),
        default=config,
        prog=f"{Path(sys.argv[0]).name} {name}",
        description=_help(recipes, description, name, default),
        args=arguments,
        registry=_unvalidated(),
    )
    try:
        config = type(config).model_validate(values)
    except ValidationError as error:
        raise ValueError(explain(error)) from error
    _refuse_credentials(config)
    return config, options


def _refuse_credentials(config: Config) -> None:
    for field, value in config.flat().items():
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str) and (shown := storage.masked(text)) != text:
                raise ValueError(
                    f"{field}={shown} holds credentials, which a run would keep in its folder: put them into the "
                    "environment instead (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, MLFLOW_TRACKING_USERNAME and "
                    "MLFLOW_TRACKING_PASSWORD)"
                )


def _from_file(path: str, kind: type[T]) -> T:
    """A recipe that ``--print-config`` or a sweep has written.

    Raises:
        FileNotFoundError, ValueError: there is none, or it is of another job or version.
    """
    try:
        return kind.model_validate_json(storage.read_bytes(storage.absolute(path)))
    except ValidationError as error:
        raise ValueError(f"{path} is no recipe of this job:\n{explain(error)}") from error


def _help(recipes: Mapping[str, tuple[str, Config]], description: str, name: str, default: str | None) -> str:
    otherwise = f" ({default} where there is none)" if default else ""
    first = f"The first argument is a recipe{otherwise}, or a JSON file of --print-config:"
    names = [f"  {recipe}: {text}" for recipe, (text, _) in recipes.items()]
    flags = [f"  {flag}: {text}." for flag, text in _FLAGS.items()]
    end = f"Then any field; the values below are those of {name}."
    return "\n".join([description, "", first, *names, "", "Everywhere:", *flags, "", end])


def _unvalidated() -> tyro.constructors.ConstructorRegistry:
    """Configurations as plain dictionaries: so all of one is validated at once, and refused in our own words."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.struct_rule
    def rule(info: tyro.constructors.StructTypeInfo) -> tyro.constructors.StructConstructorSpec | None:
        if not (isinstance(info.type, type) and issubclass(info.type, Config)):
            return None
        types = get_type_hints(info.type)
        fields = tuple(
            tyro.constructors.StructFieldSpec(
                # Of several kinds of configuration (a method's) the recipe has chosen one.
                name,
                type(getattr(info.default, name)) if isinstance(getattr(info.default, name), Config) else types[name],
                default=getattr(info.default, name),
                helptext=_unwrapped(field.description or ""),
            )
            for name, field in info.type.model_fields.items()
        )
        return tyro.constructors.StructConstructorSpec(instantiate=dict, fields=fields)

    return registry


def _unwrapped(docstring: str) -> str:
    """A docstring whose paragraphs are a line each: tyro wraps them to the terminal."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in docstring.split("\n\n"))


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
    return config.replace(update)


def prepare_job() -> int:
    """What ``jobs/prepare.py`` runs."""
    config, options = parse(recipes.PREPARE, "Turn any audio into shards for training.", default="default")
    config = absolute_paths(config, inputs=(), outputs=("output",))
    if options.print_config:
        return _print_config(config)
    from unfused_ray.data.shards.ingest import prepare

    prepare(config, dry_run=options.dry_run)
    return 0


def pretrain_job() -> int:
    """What ``jobs/pretrain.py`` runs."""
    config, options = parse(
        recipes.PRETRAIN, "Pre-train an encoder on prepared shards: DECAR-v2, or what it is compared with."
    )
    return _training_job(absolute_paths(config, ("data", "init_from", "fork"), outputs=("output",)), options)


def distill_job() -> int:
    """What ``jobs/distill.py`` runs."""
    config, options = parse(
        recipes.DISTILL,
        "Distil a student (UnFuSeD) on a task's own clips, from a pre-trained encoder's clusters instead of labels.",
    )
    return _training_job(absolute_paths(config, ("data", "teacher", "init_from", "fork"), outputs=("output",)), options)


def _training_job(config: TrainingConfig, options: Options) -> int:
    if options.print_config:
        return _print_config(config)
    if options.dry_run:
        return _rehearse(config)
    status = _train(config)
    from unfused_ray.figures import run as pictures
    from unfused_ray.report.terminal import summary
    from unfused_ray.training.driver.launch import check

    run = check(config)
    if status.state == "finished":
        logger.info("drawing pictures")
        drawn = pictures.write(run.run.uri)
        tracked = TrackedRun(run.tracking_uri, config.tracking.experiment, config.name, run.run.record()["id"])
        log_results(tracked, drawn, {config.export: storage.join(run.run.uri, config.export)})
    Console().print(summary(run.run.uri))
    where = run.tracking_uri
    mlflow = Path(sys.executable).with_name("mlflow")  # of this environment, which need not be activated
    watch = storage.masked(where) if where.startswith("http") else f"{mlflow} ui --backend-store-uri {where}"
    Console().print(f"the curves: {watch}", soft_wrap=True, highlight=False)
    _tell_report(run.run.uri)
    if status.as_asked(config.last_epoch):
        return 0
    return 128 + signal.SIGTERM if status.state == "stopped" else 1


def _rehearse(config: TrainingConfig) -> int:
    from unfused_ray.doctor import examine
    from unfused_ray.training.driver import dry_run as rehearsal
    from unfused_ray.training.driver.launch import check, describe

    with cluster.session():
        findings = examine.examine(config)
        Console().print(examine.table(findings))
        Console().print(describe(config))
        logger.info("measuring for about ten seconds")
        Console().print(rehearsal.describe(config, check(config).index))
    return examine.exit_code(findings)


def _train(config: TrainingConfig) -> Status:
    start_times = StartTimes(process_started())
    with ExitStack() as session:
        if config.runtime.kind == "workers":
            # Torch is imported while Ray starts, which is mostly waiting for other processes.
            # Not the other way round: what Ray starts would end with the thread that has started it.
            threading.Thread(target=import_module, args=("torch",), daemon=True).start()
            session.enter_context(cluster.session())
            start_times.reach("Ray started")
        from unfused_ray.training.driver.launch import train

        return train(config, start_times)


def evaluate_job() -> int:
    """What ``jobs/evaluate.py`` runs."""
    config, options = parse(
        recipes.EVALUATE, "Probe frozen encoders on labelled tasks: one table, with intervals.", default="default"
    )
    config = absolute_paths(config, inputs=("tasks", "protocol"), outputs=("output", "cache"))
    if options.print_config:
        return _print_config(config)
    from unfused_ray import evaluation_job as evaluate
    from unfused_ray.report.terminal import evaluation_table

    evaluation = evaluate.check(config)
    if options.dry_run:
        Console().print(evaluate.describe(evaluation))
        return 0
    table = evaluate.run(evaluation)
    Console().print(evaluation_table(table, Console()))
    Console().print(f"table, figures and pictures: {evaluation.output}", soft_wrap=True, highlight=False, markup=False)
    _tell_report(evaluation.output)
    evaluate.track(evaluation, table)
    return 0


def sweep_job(spaces: dict[str, Space]) -> int:
    """What ``tuning/sweep.py`` runs.

    Args:
        spaces: by name, what a sweep can vary.
    """
    config, options = parse(recipes.SWEEP, "Sweep a distillation's settings, judged on validation clips.")
    config = absolute_paths(config, inputs=("tasks", "protocol"), outputs=("output",))
    distill = absolute_paths(config.distill, inputs=("teacher",), outputs=())
    config = config.replace(distill=distill)
    if options.print_config:
        return _print_config(config)
    from unfused_ray.report.terminal import evaluation_table
    from unfused_ray.sweep import prepare, result, sweep
    from unfused_ray.sweep.space import identity

    prepared = prepare.check(config, spaces)
    if options.dry_run:
        Console().print(prepare.describe(prepared))
        return 0
    records = sweep.sweep(prepared)
    default = identity(prepared.default)
    ranked = result.rank(records, default, prepared.protocol.bootstrap)
    if not ranked:
        raise ValueError(f"no trial of {prepared.plan.uri} went to its end: see the warnings above")
    Console().print(result.to_terminal(ranked, records, default))
    recipe = result.winner(prepared, ranked[0].record)
    where = result.write_winner(prepared, recipe)
    Console().print(f"the winner as a recipe: python jobs/distill.py {where} --data …", soft_wrap=True, highlight=False)
    Console().print(evaluation_table(result.evaluate_winner(prepared, recipe), Console()))
    _tell_report(prepared.plan.uri)
    return 0


def embed_job() -> int:
    """What ``jobs/embed.py`` runs."""
    config, options = parse(
        recipes.EMBED, "Make vectors of any audio, or of prepared shards, as Parquet.", default="default"
    )
    config = absolute_paths(config, ("encoder", "source"), outputs=("output",))
    if options.print_config:
        return _print_config(config)
    from unfused_ray.embedding.job import embed

    embed(config, dry_run=options.dry_run)
    return 0


def main(job: Callable[[], int]) -> None:
    """Run a job and end the process with its exit code; a user's error is one message, not a traceback."""
    memory.keep_freed()
    try:
        logs.configure()
        code = job()
    except (ValueError, OSError, InUseError) as error:
        code = _fail(storage.masked(str(error)))
        logger.debug("%s", error, exc_info=True)
    except KeyboardInterrupt as error:
        logger.warning(str(error) or "interrupted: the same command goes on from what is finished")
        code = 128 + signal.SIGINT
    sys.exit(code)


def _tell_report(uri: str) -> None:
    text = f"a page to look at and to listen to: python -m unfused_ray report {shlex.quote(uri)}"
    Console().print(text, soft_wrap=True, highlight=False, markup=False)


def _print_config(config: Config) -> int:
    sys.stdout.write(config.model_dump_json(indent=2) + "\n")
    return 0


def _fail(message: str) -> int:
    Console(stderr=True).print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    return 2


def _is_relative(uri: str) -> bool:
    return storage.is_local(uri) and not Path(uri).expanduser().is_absolute()


def _in_submitted_job() -> bool:
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
