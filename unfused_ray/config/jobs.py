"""Settings of the jobs that do not train one network: prepare, embed, evaluate, sweep."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from unfused_ray.config.audio import FrontEndConfig
from unfused_ray.config.base import Config, NonNegativeFloat, PositiveFloat, PositiveInt, Seed
from unfused_ray.config.model import Readout
from unfused_ray.config.training import DistillConfig, TrackingConfig

LapeTaskCode = Literal[
    "sc-v1", "sc-v2-12", "sc-v2-35", "lbs", "vc", "ic", "vf", "ns", "bsd", "tut", "us8k", "lbs-chapters"
]
"""A task of the LAPE benchmark; ``python -m unfused_ray tasks`` says what each is."""

# 33 ms is what the window of the front end reflects; the longest clip of all tasks has 145 s.
WHOLE_CLIPS = {"min_seconds": 0.04, "max_seconds": 600.0, "silence_peak": 0.0}
"""Ingest settings of a LAPE task: clips of published test sets are neither cut nor set aside as short or silent."""


class PrepareConfig(Config):
    """Ingest: any audio to shards."""

    task: LapeTaskCode | Literal[""] = ""
    """Instead of a source: a LAPE task, of the data set as its publisher distributes it. Its clips are kept whole."""
    root: str = ""
    """Folder that holds the task's data set, by path or URI; empty is the environment variable UNFUSED_RAY_DATA."""
    source: str = ""
    """Audio, CSV, WebDataset tar or hub-style Parquet, by path or URI: a file, a folder, or a pattern (`d/*.tar`).

    `*` stands for any characters. A folder with CSV files directly in it (train.csv, valid.csv …) is read by them. A
    CSV has a column `files` or `wav_path` (absolute, or relative to the CSV's folder or the one above), and may have
    `label`, `split` (else the name of the CSV, where there are several) and `group`.
    """
    output: str = ""
    """Folder the shards are written to, by path or URI."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the source's clips that is taken, the same for the same seed."""
    seed: Seed = 31
    """Decides which clips `fraction` takes and their order in the shards."""
    max_seconds: PositiveFloat = 10.0
    """Longest clip of a shard."""
    long_clips: Literal["split", "truncate"] = "split"
    """What happens to longer ones: cut into pieces of max_seconds, or only the first piece kept.

    A recording of more than 24 hours is set aside as 'too long' where it is split."""
    min_seconds: PositiveFloat = 0.1
    """Shorter clips are set aside as 'too short'."""
    silence_peak: NonNegativeFloat = 1e-4
    """Clips whose largest magnitude is less than this are set aside as 'silent' (full scale is 1); 0 keeps all."""
    clips_per_shard: PositiveInt = 4096
    """Source clips of a shard, which one Ray task writes; small sources get smaller ones."""
    row_group_megabytes: PositiveFloat = 16.0
    """Size of a row group, the unit of reading; small sources get smaller ones."""
    front_end: FrontEndConfig = FrontEndConfig()
    """The front end whose statistics are computed along the way."""
    preview: bool = False
    """Also write PNG and WAV of 16 clips with their augmented views to <output>/preview."""

    @property
    def reads(self) -> str:
        """What is read, to tell a person."""
        return f"task {self.task} in {self.root}" if self.task else self.source

    @model_validator(mode="after")
    def _task_or_source(self) -> Self:
        if self.task and self.source:
            raise ValueError(f"task={self.task} and source={self.source} contradict each other: give one of them")
        if self.root and not self.task:
            raise ValueError(f"root={self.root} has no meaning without a task: give --task, or --source instead")
        for field in (*WHOLE_CLIPS, "long_clips") if self.task else ():
            value, default = getattr(self, field), type(self).model_fields[field].default
            if value not in (default, WHOLE_CLIPS.get(field)):
                raise ValueError(
                    f"{field}={value} has no meaning with task={self.task}, whose clips are kept whole, the short and "
                    "the silent ones too: leave it out"
                )
        return self


class EmbedConfig(Config):
    """Vectors of any audio, or of prepared shards, as Parquet."""

    encoder: str = ""
    """Run, exported encoder or student, by path or URI."""
    source: str = ""
    """A folder written by jobs/prepare.py, or any audio, named as for jobs/prepare.py."""
    output: str = ""
    """Folder the vectors are written to, by path or URI."""
    splits: tuple[str, ...] = ()
    """Of a prepared source, splits to embed; none named is all."""
    readout: Readout = "last"
    """Layers the vectors are made of."""
    window_seconds: NonNegativeFloat = 0.0
    """Length of the windows that slide over a clip, a vector each; 0 makes one vector of a whole clip. Of a recording
    longer than max_seconds they begin anew at every piece, and 0 makes one vector of each."""
    hop_seconds: NonNegativeFloat = 0.0
    """From the start of one window to the next; 0 is window_seconds."""
    max_seconds: PositiveFloat = 60.0
    """A longer recording is embedded in pieces of this length, which bounds the memory of a task: it has a vector a
    piece, or windows that begin anew at every piece."""
    clips_per_part: PositiveInt = 256
    """Most clips of a part of the output, which one task writes; small sources get smaller ones. Row groups (of shards,
    of Parquet sources) stay whole."""
    gpus_per_task: NonNegativeFloat = 0.0
    """GPUs that a task reserves; 0 embeds on CPUs, one a task."""

    @model_validator(mode="after")
    def _hop_needs_windows(self) -> Self:
        if self.hop_seconds and not self.window_seconds:
            raise ValueError(f"hop_seconds={self.hop_seconds:g} has no meaning where window_seconds=0: name both")
        if self.window_seconds > self.max_seconds:
            raise ValueError(
                f"window_seconds={self.window_seconds:g} must not exceed max_seconds={self.max_seconds:g}, the length "
                "of the pieces that windows slide over"
            )
        return self


class EvaluateConfig(Config):
    """Linear evaluation of frozen encoders on labelled tasks, beside what needs no training."""

    models: tuple[str, ...] = ()
    """Runs, exported encoders or students, as PATH or NAME=PATH; `{task}` in a path stands for the task's name, where
    every task has a student of its own, or every fold: `us8k-fold3` is tested on fold3."""
    tasks: tuple[str, ...] = ()
    """Folders written by jobs/prepare.py, of labelled clips with splits train, test and, best, valid; or fold1, fold2 …
    of which one is tested at a time and the next validates: the mean counts."""
    name: str = "evaluation"
    """Name in tracking, and of the default output folder."""
    output: str = ""
    """Folder for tables and pictures, by path or URI; empty is <home>/evaluations/<name>, where <home> is the
    environment variable UNFUSED_RAY_HOME, or ~/unfused-ray."""
    reference: str = ""
    """Row that all others are compared with; empty is the first of the models."""
    protocol: str = ""
    """TOML file that says how everything is read and scored; empty is the one that comes with the package."""
    random_seeds: Annotated[int, Field(ge=0)] = 3
    """Random networks of each shape; 0 leaves them out."""
    cache: str = ""
    """Folder that embeddings are kept in, by path or URI; empty is <home>/embeddings."""
    processes: Annotated[int, Field(ge=0)] = 0
    """Cells filled side by side: they share the cores, and each has its vectors in memory; 0 is one a core."""
    tracking: TrackingConfig = TrackingConfig()


class SweepConfig(Config):
    """A sweep of a distillation's settings with Ray Tune, judged on validation clips alone.

    A trial distils a student for each task. Of several tasks the mean validation accuracy decides, of a single one a
    cross-validation by groups over its training and validation clips: one small split selects noise.
    """

    tasks: tuple[str, ...] = ()
    """Folders written by jobs/prepare.py, of labelled clips with splits train and, best, valid. Test is never read
    before the end."""
    name: str = "sweep"
    """Name in tracking, and of the default output folder."""
    output: str = ""
    """Folder the sweep is written to, by path or URI; empty is <home>/sweeps/<name>, where <home> is the environment
    variable UNFUSED_RAY_HOME, or ~/unfused-ray."""
    resume: bool = False
    """Go on with the sweep that is in the output folder: finished trials are kept, others go on from their
    checkpoints."""
    space: str = "alpha-beta"
    """What is varied: a name in tuning/spaces.py."""
    search: Literal["tpe", "random", "grid"] = "tpe"
    """How points are chosen: Optuna's TPE, at random, or on a grid."""
    num_trials: PositiveInt = 20
    """Trials in all, the default one among them: that of the settings below as they are. A grid is as fine as they
    allow."""
    early_stopping: bool = True
    """Stop the worse trials early (ASHA); the default one goes to its end, for the others to be compared with."""
    halving: Annotated[int, Field(ge=2)] = 3
    """One in so many trials goes on at each of ASHA's rungs, which are so many times apart."""
    grace: PositiveFloat = 0.25
    """First rung, as a share of the epochs."""
    readouts: Annotated[tuple[Readout, ...], Field(min_length=1)] = ("last",)
    """Layers the probe may choose among; each further one takes the probe's time again."""
    protocol: str = ""
    """TOML file that says how everything is read and scored; empty is the one that comes with the package."""
    cpus_per_trial: PositiveInt = 1
    """CPUs of a trial that trains in its own process: as many trials as fit run at a time."""
    gpus_per_trial: Annotated[float, Field(gt=0, le=1)] = 1.0
    """GPUs of a trial that trains in its own process, on a cluster that has any: 0.5 lets two share one."""
    workers_per_trial: Annotated[int, Field(ge=0)] = 0
    """Workers of a worker group for each trial; 0 trains in the trial's own process."""
    max_concurrent: Annotated[int, Field(ge=0)] = 0
    """Trials at a time at most; 0 as many as fit."""
    seed: Seed = 0
    """Of the search."""
    distill: DistillConfig = DistillConfig()
    """What a trial changes a few fields of; its data and output are the sweep's business."""
    random_seeds: Annotated[int, Field(ge=0)] = 3
    """Random networks beside the winner in the table on the test split; 0 leaves them out."""
