"""Settings of the looks at a network while it trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from unfused_ray.config.base import Config, PositiveInt

WatchedMeasure = Literal["headline", "neighbours", "few-shot"]
"""Scores of vectors that are watched: those of an evaluation that choose nothing."""
QUICK_MEASURES: tuple[WatchedMeasure, ...] = get_args(WatchedMeasure)
"""All of them: those without the linear probe, which takes most of the time of an evaluation."""


class WatchConfig(Config):
    """Accuracy of labelled clips while a network trains, beside random networks of its shape; never trained on."""

    inputs: ClassVar[tuple[str, ...]] = ("data",)

    data: tuple[str, ...] = ()
    """Prepared sources of labelled clips with splits train and valid, by path or URI; none watches nothing. Test clips
    are never looked at."""
    every: PositiveInt = 5
    """Epochs from one look to the next. The first and the last epoch are always looked at."""
    clips: Annotated[int, Field(ge=20)] = 400
    """Most clips of a source to look at, from train and valid, as many of each class as far as they reach; more clips
    make a look slower."""
    measure: WatchedMeasure = "headline"
    """Measure that `patience` and `export` go by, in the mean of the sources: neighbours (share of the nearest training
    clips that have a clip's class), few-shot (accuracy with a few labelled clips of each class), or their mean,
    headline."""
    patience: Annotated[int, Field(ge=0)] = 0
    """End the training after this many looks in a row without a better one; 0 trains to the end."""
    export: Literal["last", "best"] = "last"
    """Export the network of the last epoch, or that of the best look."""

    @property
    def idle(self) -> Mapping[str, str]:
        """Fields that do not count."""
        unwatched = "without watch.data, the clips to watch"
        return {} if self.data else dict.fromkeys(("every", "clips", "measure"), unwatched)

    @model_validator(mode="after")
    def _needs_data(self) -> Self:
        for field, value, usual in (("patience", self.patience, 0), ("export", self.export, "last")):
            if value != usual and not self.data:
                raise ValueError(f"{field}={value} needs watched clips, but data=() names none: give --watch.data")
        return self
