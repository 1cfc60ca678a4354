"""Runs of all four kinds for tests of the report, and a parser of its page."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from optuna.distributions import FloatDistribution

from support.runs import tiny, tiny_student, train
from support.sources import write_source
from support.tasks import PROTOCOL, replace_columns, write_encoder, write_task
from unfused_ray import recipes, storage
from unfused_ray.config import EvaluateConfig, TrackingConfig
from unfused_ray.evaluation_job import job as evaluation_job
from unfused_ray.evaluation_job import plan as evaluation_plan
from unfused_ray.sweeps import SWEEP
from unfused_ray.sweeps.score import Score
from unfused_ray.sweeps.space import to_json
from unfused_ray.sweeps.trial import FORMAT_VERSION, Record, Rung, State

LENGTHS = (4_000, 9_000, 20_000)
NUM_CLIPS = 60
TASK = "task & co"
HOSTILE = "</script><script>alert('x')</script>\"><img src=x onerror=alert(1)>&amp;"
TRACKING = "https://alice:hunter2@tracking.example/?api_token=sesame&x=1"
"""Address of a tracking server with a password and a token."""
VOID = {"meta", "link", "img", "br", "input"}


@dataclass(frozen=True)
class Runs:
    """A prepared source and the folders of runs on it."""

    source: Path
    pretraining: str
    distillation: str
    shuffled: str
    evaluation: str
    sweep: str

    @property
    def all(self) -> tuple[str, ...]:
        """All folders of runs."""
        return self.pretraining, self.distillation, self.shuffled, self.evaluation, self.sweep


def write_runs(folder: Path, tracking_uri: str) -> Runs:
    """Write runs of each kind, on clips with keys and labels that a page must not take for HTML."""
    source = folder / "source"
    write_source(source, [[NUM_CLIPS]], LENGTHS, splits=["train"])
    keys = [f"clip {i} {HOSTILE}" for i in range(NUM_CLIPS)]
    replace_columns(source, key=keys, labels=[[f"label {i % 3} <b>"] for i in range(NUM_CLIPS)])
    runs = Runs(source, *(str(folder / name) for name in ("run", "student", "shuffled", "table", "sweep")))
    classes = [[f"class <{clip % 4}>"] for clip in range(60)]
    task = write_task(folder / TASK, 24, 12, 24, labels=classes, group=[f"g{clip // 2}" for clip in range(60)])
    watched = {"watch__data": (task,), "watch__every": 1}
    train(tiny(source, Path(runs.pretraining), tracking_uri, method__num_clusters=(4,), **watched))
    for origin, uri in (("teacher", runs.distillation), ("shuffled", runs.shuffled)):
        fields = {"teacher": runs.pretraining, "name": f"{origin}-student", "labels__origin": origin}
        train(tiny_student(source, Path(uri), tracking_uri, **fields))
    for uri in (runs.pretraining, runs.distillation, runs.shuffled):
        _share_tracking(Path(uri))
    _evaluate(folder, task, runs)
    write_sweep(Path(runs.sweep), 12)
    return runs


def _share_tracking(run: Path) -> None:
    """Rewrite a run's configuration as if it had been tracked at ``TRACKING``."""
    record = json.loads((run / "run.json").read_text())
    record["config"]["tracking"]["uri"] = TRACKING
    (run / "run.json").write_text(json.dumps(record))


def _evaluate(folder: Path, task: str, runs: Runs) -> None:
    write_encoder(folder / "model" / "encoder", "fc1")
    (folder / "protocol.toml").write_text(PROTOCOL)
    config = EvaluateConfig(
        models=(f"model <i>={folder}/model", f"watched={runs.pretraining}"),
        tasks=(task,),
        output=runs.evaluation,
        cache=str(folder / "embeddings"),
        protocol=str(folder / "protocol.toml"),
        random_seeds=1,
        processes=1,
        tracking=TrackingConfig(uri="off"),
    )
    evaluation_job.run(evaluation_plan.check(config))


def write_sweep(folder: Path, num_trials: int) -> list[Record]:
    """Write a sweep over α and β, the default trial first; α decides the accuracy, every third trial stopped early."""
    folder.mkdir(parents=True, exist_ok=True)
    config = recipes.SWEEP["tiny"][1].replace(tasks=("birds",), num_trials=num_trials)
    searched = {"method.alpha": FloatDistribution(0.0, 1.0), "method.beta": FloatDistribution(1e-3, 10.0, log=True)}
    record = {
        "config": config.model_dump(mode="json"),
        "space": to_json(searched),
        "facts": {"protocol": "0", "teacher": "", "tasks": {}},
        "environment": {"machine": "a machine of 2 CPUs"},
    }
    storage.write_json(str(folder / SWEEP), record, FORMAT_VERSION)
    rng = np.random.default_rng(0)
    method = config.distill.method
    records = []
    for number in range(num_trials):
        alpha, beta = rng.uniform(), 10 ** rng.uniform(-3, 1)
        point = {"method.alpha": alpha, "method.beta": beta}
        if number == 0:
            point = {"method.alpha": method.alpha, "method.beta": method.beta}
        state: State = "stopped early" if number % 3 == 2 else "finished"
        rungs = [_rung(1, point["method.alpha"])]
        if state == "finished":
            rungs.append(_rung(2, point["method.alpha"]))
        records.append(Record(point, state, rungs, seconds=10.0 + number))
        records[-1].write(str(folder))
    return records


def _rung(epoch: int, alpha: float) -> Rung:
    scores = [float(clip < 50 + 40 * alpha + epoch) for clip in range(100)]
    accuracy = float(np.mean(scores))
    return Rung(epoch, accuracy, [Score("birds", accuracy, scores, [f"g{clip % 10}" for clip in range(100)])])


@dataclass
class Element:
    """An element of a page."""

    tag: str
    attributes: dict[str, str]
    path: tuple[str, ...]
    """Tags of the elements around it, outermost first."""
    text: str = ""
    """Text of the element and all elements inside it."""


@dataclass
class Page(HTMLParser):
    """The elements of a page in their order; fails if a tag is not closed in the element that it was opened in."""

    html: str
    elements: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[Element] = []
        self.feed(self.html)
        self.close()
        assert not self._open, f"not closed: {[element.tag for element in self._open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        path = tuple(element.tag for element in self._open)
        element = Element(tag, {name: value or "" for name, value in attrs}, path)
        assert len(element.attributes) == len(attrs), f"an attribute twice in {tag}"
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1].tag == tag, f"</{tag}> in {[element.tag for element in self._open]}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """Return the elements with this tag and these attributes; ``class_`` stands for ``class``."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [e for e in self.elements if e.tag == tag and wanted.items() <= e.attributes.items()]
