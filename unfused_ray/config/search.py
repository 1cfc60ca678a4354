"""Settings of an index over vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from unfused_ray.config.base import Config, PositiveInt, Seed

Metric = Literal["whitened", "cosine"]
"""Measure of nearness. Whitened: cosine of centred principal components, each divided by the fourth root of its
variance. Cosine: of the vectors as they are."""


class IndexConfig(Config):
    """Index of vectors from one or several sources, to be searched by ear."""

    inputs = ("vectors", "add")
    outputs = ("output",)

    vectors: tuple[str, ...] = ()
    """Folders of vectors written by unfused-ray embed, all by one encoder. An index that exists is left as it is."""
    output: str = ""
    """Folder of the index, by path or URI."""
    add: tuple[str, ...] = ()
    """Folders of vectors to add to the index."""
    remove: tuple[str, ...] = ()
    """Sources to remove from the index, by the path of their vectors or by their name there."""
    rebuild: bool = False
    """Make the index anew from its vectors, also if it is damaged (name them all, then)."""
    metric: Metric = "whitened"
    """Measure of nearness: whitened (cosine of half-whitened principal components, which finds more clips of the same
    class), or cosine."""
    components: PositiveInt = 128
    """Most principal components of the whitened metric."""
    exact_up_to: Annotated[int, Field(ge=0)] = 200_000
    """Vectors up to which every search compares all of them; above, inverted lists are searched (IVF)."""
    quantize_above: Annotated[int, Field(ge=1_000)] = 5_000_000
    """Vectors above which they are kept as product-quantised codes of at most 64 bytes."""
    recall: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Recall of the ten nearest that inverted lists should reach: as many of them are searched as that takes."""
    seed: Seed = 0
    """Seed of the sample that the index is trained on."""

    @property
    def required(self) -> Mapping[str, str]:
        """Fields that must not be empty."""
        return {"output": "a path or a URI"}

    @model_validator(mode="after")
    def _one_kind_of_change(self) -> Self:
        if self.vectors and (self.add or self.remove):
            raise ValueError(
                f"vectors={self.vectors} names all sources of an index, add={self.add} and remove={self.remove} change "
                "one: give the one or the others"
            )
        if self.quantize_above < self.exact_up_to:
            raise ValueError(
                f"quantize_above={self.quantize_above} must not be below exact_up_to={self.exact_up_to}: exact vectors "
                "are not quantised"
            )
        return self
