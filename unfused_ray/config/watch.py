"""Settings for watching a network while it trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from unfused_ray.config.base import Config, PositiveInt

WatchedMeasure = Literal["headline", "neighbours", "few-shot"]
"""Scores of vectors that are watched: the scores of an evaluation that need no choice of settings."""
QUICK_MEASURES: tuple[WatchedMeasure, ...] = get_args(WatchedMeasure)
"""All watched measures: those without the linear probe, which takes most of an evaluation's time."""


class WatchConfig(Config):
    """Accuracy on labelled clips while a network trains, beside random networks of its shape; never trained on."""

    inputs: ClassVar[tuple[str, ...]] = ("data",)

    data: tuple[str, ...] = ()
    """Prepared sources of labelled clips with splits train and valid, by path or URI; empty watches nothing. Test clips
    are never used."""
    every: PositiveInt = 5
    """Number of epochs from one look to the next. The first and the last epoch are always looked at."""
    clips: Annotated[int, Field(ge=20)] = 400
    """Largest number of clips of a source to look at, from train and valid together, spread evenly over the classes as
    far as their clips suffice. More clips make a look slower."""
    measure: WatchedMeasure = "headline"
    """Measure that decides for `patience` and `export`, averaged over the sources: neighbours (share of the nearest
    training clips that have a clip's class), few-shot (accuracy with a few labelled clips of each class), or headline,
    the mean of these two."""
    patience: Annotated[int, Field(ge=0)] = 0
    """End the training after this many looks in a row without a better score; 0 trains to the end. Only the looks every
    `every` epochs count, not one at an end by `stop_after` or `epochs`."""
    export: Literal["last", "best"] = "last"
    """Network to export: that of the last epoch, or that of the look with the best score. A look at an end by
    `stop_after` does not count."""

    @property
    def idle(self) -> Mapping[str, str]:
        """Fields that have no effect."""
        unwatched = "without watch.data, the clips to watch"
        return {} if self.data else dict.fromkeys(("every", "clips", "measure"), unwatched)

    @model_validator(mode="after")
    def _needs_data(self) -> Self:
        for field, value, usual in (("patience", self.patience, 0), ("export", self.export, "last")):
            if value != usual and not self.data:
                raise ValueError(f"{field}={value} needs watched clips, but data=() names none: give --watch.data")
        return self
