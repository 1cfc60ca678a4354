"""Facts of a training run in words: its state, metrics, pseudo-labels and student."""

from __future__ import annotations

from unfused_ray import storage
from unfused_ray.config import DistillConfig, EncoderConfig, FrontEndConfig
from unfused_ray.figures.metrics import view_of
from unfused_ray.lease import is_in_use
from unfused_ray.runs.checkpoints import Position
from unfused_ray.runs.reader import RunReader, curves
from unfused_ray.runs.watched import best_look, judged_epochs, looks, task_names


def standing(run: RunReader) -> dict[str, str]:
    """Return state, progress, first and last value of each metric, and facts of the stage, by heading."""
    status = run.status()
    message = f": {status.message}" if status and status.message else ""
    facts = {"state": state(run) + message, "progress": progress(run), "clips": f"{run.num_clips:,}"}
    if run.earlier:
        facts["earlier environments"] = run.earlier
    for metric in view_of(run).metrics:
        for head, (_, values) in curves(run.history(), metric.name).items() if metric.summary else ():
            heading = f"{metric.summary}, {head}" if head else metric.summary
            facts[heading] = " → ".join(f"{value:{metric.form}}" for value in values[:: max(len(values) - 1, 1)])
    facts |= _watched(run)
    if isinstance(run.config, DistillConfig):
        from unfused_ray.models.export import find_export  # here: it imports torch, which a list of runs does not need

        if run.has_assignment:
            facts["pseudo-labels"] = _pseudo_labels(run, run.config)
        if find_export(run.uri) is not None:
            facts["student"] = _student(run.uri)
    return facts


def state(run: RunReader) -> str:
    """Return the state that the run has recorded, or ``died`` if it records running and no living process works on
    it."""
    status = run.status()
    if status is not None and status.state != "running":
        return status.state
    if not is_in_use(run.uri):
        return "died"
    return "running" if status else "starting"


def progress(run: RunReader) -> str:
    """Return the epochs and steps of the newest checkpoint, from which the run would resume after a crash."""
    newest = run.newest_checkpoint
    position = Position.of(storage.name(newest)) if newest else Position()
    text = f"{position.epoch} of {run.config.epochs} epochs"
    return f"{text}, {position.step} steps" if position.step else text


def _watched(run: RunReader) -> dict[str, str]:
    """Return watched accuracies, their cost, and the network chosen by them; empty if nothing was watched."""
    history, watch = run.history(), run.config.watch
    found, best = looks(history, watch), best_look(judged_epochs(history, watch, run.config.epochs), watch)
    if best is None:
        return {}
    spent = {name: sum(entry.get(f"seconds_{name}", 0.0) for entry in history) for name in ("watch", "train")}
    shown = " → ".join(f"{look.accuracy:.1%}" for look in found[:: max(len(found) - 1, 1)])
    beside = f"best {best.accuracy:.1%} after epoch {best.epoch}; random networks {best.random:.1%}"
    took = f"took {spent['watch'] / spent['train']:.1%} of the time of training"
    facts = {
        f"watched, {watch.measure}": f"{shown}, {beside}",
        "looks": f"{len(found)}, at validation clips of {', '.join(task_names(watch))}; {took}",
    }
    if watch.export == "best":
        from unfused_ray.models.export import find_export, read_description

        if find_export(run.uri) is not None and (seen := read_description(run.uri)["extra"].get("watched")):
            epochs = read_description(run.uri)["extra"]["epochs"]
            facts["exported"] = f"after {epochs} epochs, the best {seen['measure']}: {seen['accuracy']:.1%}"
    return facts


def _pseudo_labels(run: RunReader, config: DistillConfig) -> str:
    """Return number and origin of the pseudo-labels, and their agreement with the labels."""
    from unfused_ray.models.export import run_of

    assignment = run.assignment
    teacher = storage.name(run_of(config.teacher))  # the teacher may be given by its run or its export
    origin = {
        "teacher": f"clusters of the teacher {teacher}",
        "random": "clusters of a random encoder",
        "shuffled": f"clusters of the teacher {teacher}, dealt out at random",
        "true": "true classes",
    }[config.labels.origin]
    text = " + ".join(str(len(prototypes)) for prototypes in assignment.prototypes) + f" {origin}"
    agreement = [f"{value:.2f}" for name, value in assignment.health.items() if name.endswith("nmi_labels")]
    return f"{text}, NMI with the labels {', '.join(agreement)}" if agreement else text


def _student(run_uri: str) -> str:
    """Return size and work of the exported network, beside those of the network that it is the beginning of."""
    from unfused_ray.models.cost import cost_of
    from unfused_ray.models.encoder import LAYERS
    from unfused_ray.models.export import read_description

    description = read_description(run_uri)
    shape, front_end = EncoderConfig(**description["encoder"]), FrontEndConfig(**description["front_end"])
    (count, work), (whole, of_whole) = (cost_of(each, front_end) for each in (shape, shape.replace(cut=LAYERS[-1])))
    saving = 100 * (1 - count / whole)
    return (
        f"the network up to {shape.cut}: {count:,} parameters ({saving:.0f} % fewer than the whole network's "
        f"{whole:,}), {work / 1e6:.3g} million multiply–adds per second of audio (whole: {of_whole / 1e6:.3g})"
    )
