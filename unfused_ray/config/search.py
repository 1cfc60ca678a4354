"""Settings of an index over vectors, of a search in it, and of a search for near-copies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from unfused_ray.config.base import Config, NonNegativeFloat, PositiveFloat, PositiveInt, Seed

IndexMetric = Literal["whitened", "cosine"]
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
    metric: IndexMetric = "whitened"
    """Measure of nearness: whitened (cosine of half-whitened principal components, which finds more clips of the same
    class), or cosine."""
    components: PositiveInt = 128
    """Most principal components of the whitened metric."""
    exact_up_to: Annotated[int, Field(ge=0)] = 200_000
    """Vectors up to which every search compares all of them; above, inverted lists are searched (IVF)."""
    quantize_above: Annotated[int, Field(ge=1_000)] = 5_000_000
    """Vectors above which they are kept as product-quantised codes of at most 64 bytes: a quarter of the memory, but a
    search finds about nine of the ten nearest, in however many lists."""
    recall: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Recall of the ten nearest that inverted lists should reach: as many of them are searched as that takes."""
    seed: Seed = 0
    """Seed of the sample that the index is trained on."""

    @property
    def required(self) -> Mapping[str, str]:
        """Fields that must not be empty."""
        return {"output": "a path or a URI"}

    @property
    def idle(self) -> Mapping[str, str]:
        """Fields that do not count."""
        return {"components": "with metric=cosine, which has none"} if self.metric == "cosine" else {}

    @model_validator(mode="after")
    def _one_kind_of_change(self) -> Self:
        if self.vectors and (self.add or self.remove):
            raise ValueError(
                f"vectors={self.vectors} names all sources of an index, but add={self.add} and remove={self.remove} "
                "change an index: give either vectors, or add and remove"
            )
        if self.quantize_above < self.exact_up_to:
            raise ValueError(
                f"quantize_above={self.quantize_above} must not be below exact_up_to={self.exact_up_to}: exact vectors "
                "are not quantised"
            )
        return self


class SearchConfig(Config):
    """Search of an index by one question: a file, a clip, a label, or marks."""

    model_config = ConfigDict(populate_by_name=True)
    inputs = ("index", "query", "learn", "encoder")
    outputs = ("page",)

    index: str = ""
    """Folder written by unfused-ray index, by path or URI."""
    query: str = ""
    """File of audio to ask for, by path or URI."""
    first: Annotated[NonNegativeFloat, Field(alias="from")] = 0.0
    """Second of the file, clip or recording that the question begins at."""
    last: Annotated[PositiveFloat | None, Field(alias="to")] = None
    """Second that it ends at; the end of the file, clip or recording if none is named."""
    key: str = ""
    """Ask for what sounds like this clip of the index, or like this recording, if its pieces are clips there."""
    key_source: str = ""
    """Source of the key, where several have it."""
    label: str = ""
    """Ask for what sounds like the clips of this label, and does not carry it."""
    learn: str = ""
    """CSV of marks, by path or URI: ask for what a classifier of them would keep, and for the clips that it is least
    sure of."""
    encoder: str = ""
    """Encoder for the query; by default the one that made the vectors, at the path recorded with them."""
    count: PositiveInt = 20
    """Recordings to find, the nearest first: each once, and the question itself never."""
    splits: tuple[str, ...] = ()
    """Find clips of these splits alone."""
    labels: tuple[str, ...] = ()
    """Find clips with one of these labels alone."""
    sources: tuple[str, ...] = ()
    """Find clips of these sources alone, by their names in the index."""
    min_seconds: NonNegativeFloat = 0.0
    """Find clips or windows of at least this length alone."""
    max_seconds: PositiveFloat | None = None
    """Find those of at most this length alone."""
    format: Literal["table", "csv", "json"] = "table"
    """Form in which the command prints the hits; CSV has a column for marks."""
    page: str = ""
    """Path or URI of a page to write, to listen to the hits and to mark them."""

    @property
    def required(self) -> Mapping[str, str]:
        """Fields that must not be empty."""
        return {"index": "a folder written by unfused-ray index"}

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        given = [name for name in ("query", "key", "label", "learn") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"a search asks one question, not {' and '.join(given)}: give one of them")
        needs = {"from": "query or key", "to": "query or key", "encoder": "query", "key_source": "key"}
        values = {"from": self.first, "to": self.last, "encoder": self.encoder, "key_source": self.key_source}
        for name, of in needs.items():
            if given and values[name] and given[0] not in of.split(" or "):
                raise ValueError(f"{name}={values[name]} has no effect with {given[0]}: it belongs to {of}")
        for (low, at_least), (high, at_most) in (
            (("from", self.first), ("to", self.last)),
            (("min_seconds", self.min_seconds), ("max_seconds", self.max_seconds)),
        ):
            if at_most is not None and at_most <= at_least:
                raise ValueError(f"{high}={at_most:g} must be more than {low}={at_least:g}, both in seconds")
        return self


class DuplicatesConfig(Config):
    """Search for near-copies within prepared sources, or between them and others."""

    inputs = ("sources", "against")
    outputs = ("output",)

    sources: tuple[str, ...] = ()
    """Folders written by unfused-ray prepare, by path or URI. Near-copies are the same recording at another level,
    through a codec, a filter or another rate, in noise, or with its edges cut off. No encoder is needed."""
    splits: tuple[str, ...] = ()
    """Ask about these splits alone."""
    against: tuple[str, ...] = ()
    """Prepared sources to look among; none named looks among the first ones, but not at a clip itself."""
    against_splits: tuple[str, ...] = ()
    """Look among these splits of them alone."""
    precision: Annotated[float, Field(gt=0, le=1)] = 0.999
    """Share of the pairs above the threshold that must be true copies, measured on altered copies of some clips."""
    output: str = ""
    """Path or URI of a CSV file of all pairs to write."""

    @property
    def required(self) -> Mapping[str, str]:
        """Fields that must not be empty."""
        return {"sources": "folders written by unfused-ray prepare"}

    @model_validator(mode="after")
    def _splits_of_something(self) -> Self:
        if self.against_splits and not self.against:
            raise ValueError(f"against_splits={self.against_splits} are splits of --against: give that too")
        return self
