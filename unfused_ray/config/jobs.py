"""Settings of the jobs other than single trainings: prepare, embed, evaluate, compare, sweep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from unfused_ray.config.audio import FrontEndConfig
from unfused_ray.config.base import Config, NonNegativeFloat, PositiveFloat, PositiveInt, Seed
from unfused_ray.config.model import Readout
from unfused_ray.config.training import DistillConfig, TrackingConfig

LapeTaskCode = Literal[
    "sc-v1", "sc-v2-12", "sc-v2-35", "lbs", "vc", "ic", "vf", "ns", "bsd", "tut", "us8k", "lbs-chapters"
]
"""Task of the LAPE benchmark; ``unfused-ray tasks`` describes each."""

Measure = Literal["headline", "neighbours", "few-shot", "linear"]
"""Score of vectors. Neighbours: share of the nearest training clips that have a clip's class. Few-shot: accuracy of a
linear layer trained on a few labelled clips of each class. Linear: accuracy of one trained on all clips. Headline: mean
of neighbours and few-shot."""
MEAN = "mean"
"""Name of the mean over several tasks, used beside the tasks' names in tables and in the curves of a run."""
SharedClipsRule = Literal["refuse", "keep"]
"""Treatment of recordings that are both in test and in another split of a task."""
PieceSeconds = Annotated[float, Field(ge=0.001, allow_inf_nan=False)]
"""Length of a piece: at least one sample at the lowest rate of a front end, because shorter pieces would be empty."""
_PATH = "a path or a URI"
_TASKS = "at least one folder written by unfused-ray prepare"

# The front end mirrors half a window, 32 ms, at both ends of a clip; the longest clip of all tasks has 145 s.
WHOLE_CLIPS = {"min_seconds": 0.04, "max_seconds": 600.0, "silence_peak": 0.0}
"""Ingest settings of a LAPE task: clips of published test sets are neither cut nor set aside as short or silent."""


class ColumnsConfig(Config):
    """Columns of a list or Parquet file, or JSON fields in a tar, that are not found by their names."""

    path: str = ""
    """Column of a list that holds the paths of the audio files; empty finds `files`, `wav_path`, `filename`, `path` and
    the like."""
    audio: str = ""
    """Column of a Parquet file that holds the audio; empty takes the only one that does."""
    label: str = ""
    """Column of the labels; empty finds `labels`, `label`, `category`, `class`, `tags`, `target` and the like. For
    audio files without a list, `folder` labels each file by the folder within the source that it is in, or by the one
    above if that folder was taken for a split (`train/robin/1.wav`, `robin/train/1.wav`)."""
    split: str = ""
    """Column of the splits; empty finds `split`; otherwise a `partition`, `subset`, `set`, `usage` or the like that
    holds names of splits only; otherwise, if the names of the file and its folder give no split, `fold`."""
    group: str = ""
    """Column of the groups; empty finds `group`."""


class PrepareConfig(Config):
    """Conversion of any audio into shards."""

    inputs = ("root", "source", "near_copies")
    outputs = ("output",)

    task: LapeTaskCode | Literal[""] = ""
    """LAPE task to prepare instead of a source, from the data set as published. Its clips are kept whole. Empty
    prepares `source`."""
    root: str = ""
    """Folder of the task's data set, by path or URI; empty is the environment variable UNFUSED_RAY_DATA."""
    source: str = ""
    """Audio, CSV, TSV, WebDataset tar or hub-style Parquet, by path or URI: a file, a folder or a pattern (`d/*.tar`).

    `*` matches any characters. CSV files directly in a folder (train.csv, valid.csv …) decide which of its files are
    read. A CSV has a column of paths (absolute, or relative to the CSV's folder, the one above, or a folder in one of
    these), and may have columns of labels, splits and groups. Splits are also read from the names of files and folders.
    `--dry-run` shows how the source was understood.
    """
    columns: ColumnsConfig = ColumnsConfig()
    unsplit: Literal["refuse", "train"] = "refuse"
    """Treatment of clips without a split if other clips or files are held out for validation or test: refuse the
    source, or put these clips into train. A source in which nothing is held out is never refused."""
    output: str = ""
    """Folder to write the shards to, by path or URI."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the source's clips to take; the same seed takes the same clips. 1 takes all."""
    seed: Seed = 31
    """Seed of the choice of clips by `fraction`, and of their order in the shards."""
    max_seconds: PieceSeconds = 10.0
    """Greatest length of a clip in the shards, in seconds."""
    long_clips: Literal["split", "truncate"] = "split"
    """Split longer clips into pieces of max_seconds, or keep only their first piece (truncate).

    Splitting keeps the first 24 hours of a recording and sets the rest aside as 'too long'.
    """
    min_seconds: PositiveFloat = 0.1
    """Smallest length of a clip, in seconds; shorter ones are set aside as 'too short'."""
    silence_peak: NonNegativeFloat = 1e-4
    """Smallest peak of a clip, where full scale is 1; clips below it are set aside as 'silent'. 0 keeps all."""
    clips_per_shard: PositiveInt = 4096
    """Number of source clips in a shard, which one Ray task writes; small sources get smaller shards."""
    row_group_megabytes: PositiveFloat = 16.0
    """Size of a row group, the unit of reading, in megabytes; small sources get smaller row groups."""
    front_end: FrontEndConfig = FrontEndConfig()
    """Front end whose statistics are computed during the ingest."""
    preview: bool = False
    """Write 16 clips and their augmented views as PNG and WAV files to <output>/preview."""
    near_copies: tuple[str, ...] = ()
    """Other prepared sources, such as those of a pre-training, by path or URI: count the clips that have a near-copy in
    them. Empty counts nothing."""

    @property
    def required(self) -> Mapping[str, str]:
        """Fields that must not be empty."""
        return dict.fromkeys(("output",) if self.task else ("source", "output"), _PATH)

    @property
    def reads(self) -> str:
        """The task or source, in words."""
        return f"task {self.task} in {self.root}" if self.task else self.source

    @model_validator(mode="after")
    def _task_or_source(self) -> Self:
        if self.task and self.source:
            raise ValueError(f"task={self.task} and source={self.source} contradict each other: give one of them")
        if self.root and not self.task:
            raise ValueError(f"root={self.root} has no effect without a task: give --task, or --source instead")
        for field in (*WHOLE_CLIPS, "long_clips", "columns", "unsplit") if self.task else ():
            value, default = getattr(self, field), type(self).model_fields[field].default
            if value not in (default, WHOLE_CLIPS.get(field)):
                raise ValueError(
                    f"{field}={value} has no effect with task={self.task}, whose clips are kept whole, the short and "
                    "the silent ones too, with their published labels and splits: leave it out"
                )
        return self

    @model_validator(mode="after")
    def _pieces_are_long_enough(self) -> Self:
        rate = self.front_end.sample_rate
        if round(self.max_seconds * rate) / rate < self.min_seconds:
            raise ValueError(
                f"max_seconds={self.max_seconds:g} is less than min_seconds={self.min_seconds:g} (in samples at {rate} "
                "Hz): every clip would be too short. Raise the one, or lower the other"
            )
        return self


class EmbedConfig(Config):
    """Embedding of any audio, or of a prepared source, as vectors in Parquet."""

    inputs = ("encoder", "source")
    outputs = ("output",)

    encoder: str = ""
    """Encoder to use: a run, or an exported encoder or student, by path or URI."""
    source: str = ""
    """Prepared source, or any audio that unfused-ray prepare reads, by path or URI."""
    output: str = ""
    """Folder to write the vectors to, by path or URI."""
    columns: ColumnsConfig = ColumnsConfig()
    splits: tuple[str, ...] = ()
    """Splits of a prepared source to embed; empty embeds all."""
    readout: Readout = "last"
    """Layers of the encoder that the vectors are made of."""
    window_seconds: NonNegativeFloat = 0.0
    """Length of the windows that slide over a clip, in seconds; each gives one vector. 0 makes one vector of a whole
    clip, or of each piece of max_seconds. Windows start anew in every piece."""
    hop_seconds: NonNegativeFloat = 0.0
    """Time from the start of one window to the next, in seconds; 0 takes window_seconds."""
    max_seconds: PieceSeconds = 60.0
    """Length of the pieces into which a longer recording is cut to be embedded, in seconds; it bounds the memory of a
    task."""
    clips_per_part: PositiveInt = 256
    """Largest number of clips in a part of the output, which one task writes; small sources get smaller parts. Row
    groups are never divided."""
    gpus_per_task: NonNegativeFloat = 0.0
    """Number of GPUs that a task reserves; 0 makes each task embed on one CPU."""

    @property
    def required(self) -> Mapping[str, str]:
        """Fields that must not be empty."""
        return dict.fromkeys(("encoder", "source", "output"), _PATH)

    @model_validator(mode="after")
    def _hop_needs_windows(self) -> Self:
        if self.hop_seconds and not self.window_seconds:
            raise ValueError(f"hop_seconds={self.hop_seconds:g} has no effect with window_seconds=0: give both")
        if self.window_seconds > self.max_seconds:
            raise ValueError(
                f"window_seconds={self.window_seconds:g} must not exceed max_seconds={self.max_seconds:g}, the length "
                "of the pieces that windows slide over"
            )
        return self


class EvaluateConfig(Config):
    """Scores of frozen encoders on labelled tasks by three probes, beside untrained baselines."""

    inputs = ("tasks", "protocol")
    outputs = ("output", "cache")

    models: tuple[str, ...] = ()
    """Encoders to score: runs, or exported encoders or students, as PATH or NAME=PATH. For tasks with students of their
    own, `{task}` in a path becomes the name of the task, or of its fold (`us8k-fold3` is tested on fold3). An ONNX file
    is given by its path, any other encoder as NAME=module:callable (interface:
    unfused_ray.evaluation.embedders.Embedder)."""
    tasks: tuple[str, ...] = ()
    """Prepared sources of labelled clips, by path or URI. Their splits are train, test and preferably valid; or fold1,
    fold2 …, each of which is tested once while the next one validates."""
    name: str = "evaluation"
    """Name of the evaluation in tracking, and of its default folder."""
    output: str = ""
    """Folder to write tables and pictures to, by path or URI; empty is <home>/evaluations/<name>, where <home> is the
    environment variable UNFUSED_RAY_HOME or ~/unfused-ray."""
    reference: str = ""
    """Row that all others are compared with; empty takes the first model."""
    protocol: str = ""
    """TOML file that defines how clips are read and scored, by path or URI; empty takes the one of the package."""
    random_seeds: Annotated[int, Field(ge=0)] = 3
    """Number of random networks of each shape to score; 0 scores none."""
    cache: str = ""
    """Folder to keep embeddings in, by path or URI; empty is <home>/embeddings."""
    processes: Annotated[int, Field(ge=0)] = 0
    """Number of cells of the table that are filled at the same time, each with its vectors in memory; 0 fills one per
    usable core."""
    shared_clips: SharedClipsRule = "refuse"
    """Treatment of recordings that are both in test and in another split, bit for bit: refuse such a task, or keep
    them. The table counts them."""
    tracking: TrackingConfig = TrackingConfig()

    @property
    def required(self) -> Mapping[str, str]:
        """Fields that must not be empty."""
        return {"tasks": _TASKS}


class CompareConfig(Config):
    """A table of systems × tasks, made from a plan: missing systems are trained and evaluated, then all are
    compared."""

    inputs = ("data_root",)
    outputs = ("output",)

    plan: str = ""
    """Plan of the table: the name of one in the package, or the path of a TOML file."""
    data_root: str = ""
    """Folder of the prepared sources and tasks, by path or URI; each has there the name that the plan gives it."""
    output: str = ""
    """Folder to write the table and its runs to, by path or URI; empty is <home>/tables/<name of the plan>, where
    <home> is the environment variable UNFUSED_RAY_HOME or ~/unfused-ray."""
    only: tuple[str, ...] = ()
    """Systems to train, together with those that they build on; empty trains all."""
    seeds: tuple[Seed, ...] = ()
    """Seeds of the plan to train; empty trains all."""
    use: tuple[str, ...] = ()
    """Finished runs to use instead of training, as SYSTEM=FOLDER, where {seed} and {task} stand for those of each
    training. A folder without {seed} is used only for the seed of its run; a run whose seed is not in the plan is
    refused."""
    stages: Annotated[tuple[Literal["train", "validate", "evaluate"], ...], Field(min_length=1)] = ("train", "evaluate")
    """Steps to take: train; validate, which scores the trained rows on validation clips, for choosing, and reads no
    test clip; evaluate, which freezes the plan and reads the test clips."""
    processes: PositiveInt = 1
    """Number of trainings or evaluations that run at the same time, each on its share of the cores."""
    against: str = ""
    """Row to compare every other row with in addition, printed and in against.json; these comparisons are not part of
    the plan. Empty adds none."""
    shared_clips: SharedClipsRule = "refuse"
    """Treatment of recordings that are both in test and in another split of a task, bit for bit: refuse such a task, or
    keep them."""
    list: bool = False
    """Show the state of every training and the minutes that are left, then end."""

    @property
    def required(self) -> Mapping[str, str]:
        """Fields that must not be empty."""
        return {"data_root": "the folder of the prepared sources"}

    @property
    def idle(self) -> Mapping[str, str]:
        """Fields that have no effect."""
        shown = f"with stages={self.stages}, none of which"
        idle = {} if "evaluate" in self.stages else {"against": f"{shown} makes a table"}
        if "train" in self.stages or self.list:
            return idle
        return idle | dict.fromkeys(("only", "seeds"), f"{shown} trains: every finished row is scored")


class SweepConfig(Config):
    """Sweep of a distillation's settings with Ray Tune, judged on validation clips alone.

    A trial distils a student for each task. With several tasks, trials are judged by their mean score on validation
    clips. A single task is judged by cross-validation over the groups of its training and validation clips, because one
    small split selects noise.
    """

    inputs = ("tasks", "protocol")
    outputs = ("output",)

    tasks: tuple[str, ...] = ()
    """Prepared sources of labelled clips with splits train, test and valid, by path or URI; a single source may lack
    valid. Test is read only at the end."""
    name: str = "sweep"
    """Name of the sweep in tracking, and of its default folder."""
    output: str = ""
    """Folder to write the sweep to, by path or URI; empty is <home>/sweeps/<name>, where <home> is the environment
    variable UNFUSED_RAY_HOME or ~/unfused-ray."""
    resume: bool = False
    """Resume the sweep in the output folder: finished trials are kept, others resume from their checkpoints."""
    space: str = "alpha-beta"
    """Search space: alpha-beta, alpha-beta-clusters, alpha-beta-rate, alpha-beta-cut, or FILE.py:NAME, a dictionary
    that maps names of fields to Optuna's distributions."""
    search: Literal["tpe", "random", "grid"] = "tpe"
    """Method of choosing points: Optuna's TPE, at random, or on a grid."""
    num_trials: PositiveInt = 20
    """Number of trials, including that of the default settings. A grid is as fine as this number allows."""
    early_stopping: bool = True
    """Stop the worse trials early (ASHA), but never the default one, because all others are compared with it."""
    halving: Annotated[int, Field(ge=2)] = 3
    """Reduction factor of ASHA: at each rung one in this many trials continues, for this many times the epochs."""
    grace: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """First rung of ASHA, as a share of the epochs."""
    score: Measure = "headline"
    """Measure that trials are judged by: headline (the mean of neighbours and few-shot), neighbours, few-shot or
    linear."""
    protocol: str = ""
    """TOML file that defines how clips are read and scored, by path or URI; empty takes the one of the package."""
    cpus_per_trial: PositiveInt = 1
    """Number of CPUs of a trial that trains in its own process."""
    gpus_per_trial: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Number of GPUs of a trial that trains in its own process, if the cluster has any; 0.5 lets two trials share
    one."""
    workers_per_trial: Annotated[int, Field(ge=0)] = 0
    """Number of workers in each trial's worker group; 0 trains in the trial's own process."""
    max_concurrent: Annotated[int, Field(ge=0)] = 0
    """Largest number of trials that run at the same time; 0 runs as many as fit."""
    seed: Seed = 0
    """Seed of the search."""
    distill: DistillConfig = DistillConfig()
    """Distillation whose settings the trials vary; leave out its data and output, which the sweep sets."""
    random_seeds: Annotated[int, Field(ge=0)] = 3
    """Number of random networks beside the winner in the final table; 0 scores none."""
    shared_clips: SharedClipsRule = "refuse"
    """Treatment of recordings that are both in test and in another split of a task, bit for bit: refuse such a task, or
    keep them."""

    @property
    def required(self) -> Mapping[str, str]:
        """Fields that must not be empty."""
        return {"tasks": _TASKS}

    @property
    def idle(self) -> Mapping[str, str]:
        """Fields that have no effect."""
        return {} if self.early_stopping else dict.fromkeys(("halving", "grace"), "without early stopping")
