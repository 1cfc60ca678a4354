"""The export of an encoder: checked, described, compared with the encoder on real clips, written, and recorded."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace

from rich.console import Group

from unfused_ray import extras, paths, storage
from unfused_ray.config import EvaluateConfig, ExportConfig, TrackingConfig
from unfused_ray.data.shards.format import refuse_other_rate
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.evaluation.cells import MEASURES
from unfused_ray.evaluation.table import EvaluationTable
from unfused_ray.evaluation_job import job as evaluation_job
from unfused_ray.evaluation_job import plan as evaluation_plan
from unfused_ray.exports import card, forms, onnx_file
from unfused_ray.exports.agreement import Agreement, read_waves
from unfused_ray.exports.convert import portable
from unfused_ray.exports.plan import ExportPlan
from unfused_ray.models.cost import num_parameters
from unfused_ray.models.export import load_encoder, read_description
from unfused_ray.progress import summary

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
RECORD = "export.json"
"""Record of a whole export with its files and checks, written last."""
BEGUN = "_export.json"
"""Names of the files that an unfinished export may have left, kept until it has its record."""
EVALUATION = "evaluation"
"""Folder of the scores of the 8-bit file."""


@dataclass(frozen=True)
class ExportResult:
    """A finished export."""

    folder: str
    """Path or URI."""
    files: Mapping[str, int]
    """Sizes of the files in bytes."""
    checks: Mapping[str, Agreement]
    """Comparison with the encoder, by file."""
    table: EvaluationTable | None
    """Scores of the float32 file and of the file with 8-bit weights; None without the latter."""


def check(config: ExportConfig) -> ExportPlan:
    """Load the encoder and find the clips; nothing is written.

    Raises:
        FileNotFoundError: there is no encoder, or no prepared source.
        ValueError: a path cannot be used, the sources have another sample rate, a task cannot be scored, the export to
            replace has a damaged record, or a file would be replaced that no export wrote, or that was edited since.
        MissingExtraError: the packages that write ONNX files are not installed.
    """
    config = paths.check(config)
    for module in ("onnx", "onnxscript", "onnxruntime") if config.to == "onnx" else ():
        extras.require("export", module, "an export to ONNX")
    description = read_description(config.encoder)
    data = config.data or tuple(description["extra"].get("config", {}).get("data", ()))
    if not data:
        raise ValueError(
            f"data=() names no clips to check on, and {description['folder']} does not say what it was trained on: "
            "give folders written by unfused-ray prepare, --data …"
        )
    encoder = load_encoder(config.encoder)
    try:
        index = ClipIndex.load(data, None)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}. Or check the export on other clips: --data …") from error
    refuse_other_rate(index.manifests, encoder.sampling_rate)
    config = config.replace(data=data, tasks=(config.tasks or data) if config.int8 else ())
    if config.tasks:
        # Tasks that cannot be scored are refused before an export is replaced.
        evaluation_plan.check(_scores_of(config, ()))
    results = card.find_results(config.evaluation, description) if config.evaluation else None
    plan = ExportPlan(config, description, encoder, index, results)
    files = _files(plan.output)
    plan = replace(plan, before=_before(plan.output, files, config.evaluation))
    _refuse_foreign(plan, files)
    return plan


def describe(plan: ExportPlan) -> Group:
    """Summarise an export without starting it."""
    config = plan.config
    rows: dict[str, float | str] = {
        "encoder": f"{plan.description['folder']}, {num_parameters(plan.encoder.encoder):,} parameters",
        "clips to check on": f"{min(config.num_clips, plan.index.num_clips):,} of {', '.join(config.data)}",
        **({"8-bit weights, scored on": ", ".join(config.tasks)} if config.int8 else {}),
        **({"replaces": ", ".join(plan.before)} if plan.before else {}),
        **({"rows of the card": f"{plan.results.row} on {', '.join(plan.results.tasks)}"} if plan.results else {}),
    }
    return summary(f"would export to {plan.output}, as {config.to}; a dry run writes nothing", rows)


def run(plan: ExportPlan) -> ExportResult:
    """Make the export, compare it with the encoder, and write it; its record comes last.

    An earlier export in the folder is replaced once the new one has been compared; all its files are removed.

    Raises:
        ValueError: the export differs from the encoder by more than ``forms.TOLERANCE``, or no two clips can be read.
        OSError: it cannot be written.
    """
    waves = read_waves(plan.index, plan.config.num_clips)
    network = portable(plan.encoder)
    make = {"onnx": forms.make_onnx, "hub": forms.make_hub, "torch": forms.make_torch}[plan.config.to]
    files, checks = make(plan, network, waves)
    assert files.keys() == set(forms.file_names(plan.config))  # check has looked for these in the folder
    sizes = {name: len(data) for name, data in files.items()}
    record = {
        "to": plan.config.to,
        # No paths, because the folder may be published.
        "encoder": {name: plan.description[name] for name in ("sha256", "num_parameters")},
        "files": sizes,
        "sha256": {name: storage.sha256(data) for name, data in files.items()},
        "checks": {name: asdict(agreement) for name, agreement in checks.items()},
        "metadata": plan.metadata,
    }
    begun = storage.join(plan.output, BEGUN)
    storage.write_json(begun, {"files": sorted({*files, *plan.before})}, FORMAT_VERSION)
    _remove(plan)
    for name, data in files.items():
        storage.write_bytes(storage.join(plan.output, name), data)
    table = _score(plan) if plan.config.int8 else None
    storage.write_json(storage.join(plan.output, RECORD), record, FORMAT_VERSION)
    storage.delete(begun)
    return ExportResult(plan.output, sizes, checks, table)


def describe_result(result: ExportResult) -> Group:
    """Summarise a finished export."""
    rows: dict[str, float | str] = {name: f"{size / 1e6:.2f} MB" for name, size in result.files.items()}
    rows |= {f"{name} against the encoder": agreement.text for name, agreement in result.checks.items()}
    if result.table:
        heading = result.table.headings[-1]
        whole, small = result.table.rows[-2:]
        for measure in MEASURES:
            difference = small.difference[measure][heading].text("+")
            rows[f"{measure}, {heading}"] = (
                f"{whole.accuracy[measure][heading].text()} %; with 8 bits "
                f"{small.accuracy[measure][heading].text()} %, {difference} points"
            )
    return summary(f"exported to {result.folder}", rows)


def _files(output: str) -> dict[str, str | int | None]:
    """Return the files of the export in a folder, by name, with the SHA-256 or size that they were written with.

    It is None for files of an unfinished export, any of which may be half of the old and half of the new one. Without
    an export there are none.
    """
    remedy = f"delete {output}, or name another output"
    if storage.exists(uri := storage.join(output, RECORD)):
        record = storage.read_json(uri, FORMAT_VERSION, remedy)
        return {**record.get("files", {}), **record.get("sha256", {})}  # the first records have only the sizes
    if storage.exists(uri := storage.join(output, BEGUN)):
        return dict.fromkeys(storage.read_json(uri, FORMAT_VERSION, remedy)["files"])
    return {}


def _before(output: str, files: Collection[str], named: str) -> tuple[str, ...]:
    """Return the names of the files and scores of an export that are in its folder.

    Args:
        output: the folder.
        files: files of the export.
        named: evaluation that the new export names, which is kept wherever it is.
    """
    there = [storage.name(file) for file in storage.list_files(output)]  # a record does not cover other folders
    has_scores = onnx_file.INT8_FILE in files and storage.join(output, EVALUATION) != storage.join(named)
    return *(name for name in there if name in files), *([EVALUATION] if has_scores else ())


def _refuse_foreign(plan: ExportPlan, files: Mapping[str, str | int | None]) -> None:
    """Refuse to replace what no export has written, and what a person has edited since.

    Args:
        plan: the new export.
        files: files of the export in its folder, from :func:`_files`.

    Raises:
        ValueError: names the folder and the file.
    """
    for name in (storage.name(file) for file in storage.list_files(plan.output)):
        if (written := files.get(name)) is not None:
            data = storage.read_bytes(storage.join(plan.output, name))
            if written not in (storage.sha256(data), len(data)):
                raise _would_be_replaced(plan.output, f"{name} that was edited after its export")
        elif name in forms.file_names(plan.config) and name not in files:
            raise _would_be_replaced(plan.output, f"{name} that belongs to no export")
    if plan.config.int8 and EVALUATION not in plan.before and storage.exists(storage.join(plan.output, EVALUATION)):
        raise _would_be_replaced(plan.output, f"folder {EVALUATION} that belongs to no export")


def _would_be_replaced(output: str, content: str) -> ValueError:
    return ValueError(f"output={output} holds a {content}, and would be replaced: move it away, or name another output")


def _remove(plan: ExportPlan) -> None:
    """Remove the export that is replaced, its record first, so that no partly removed export looks whole."""
    storage.delete(storage.join(plan.output, RECORD))
    for name in plan.before:
        storage.delete(storage.join(plan.output, name))
    if plan.before:
        logger.info("%s: the export that was there is replaced, %s removed", plan.output, ", ".join(plan.before))


def _score(plan: ExportPlan) -> EvaluationTable:
    """Score both ONNX files as rows of a table."""
    files = {"float32": onnx_file.FILE, "int8": onnx_file.INT8_FILE}
    models = tuple(f"{name}={storage.join(plan.output, file)}" for name, file in files.items())
    config = _scores_of(plan.config, models).replace(output=storage.join(plan.output, EVALUATION))
    return evaluation_job.run(evaluation_plan.check(config))


def _scores_of(config: ExportConfig, models: tuple[str, ...]) -> EvaluateConfig:
    """Return the configuration that evaluates ONNX files on the tasks of an export."""
    tracking = TrackingConfig(uri="off")
    return EvaluateConfig(models=models, tasks=config.tasks, name=EVALUATION, random_seeds=0, tracking=tracking)
