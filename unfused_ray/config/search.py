"""Settings of an index over vectors, of a search in it, and of a search for near-copies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from unfused_ray.config.base import Config, NonNegativeFloat, PositiveFloat, PositiveInt, Seed

IndexMetric = Literal["whitened", "cosine"]
"""Measure of nearness. Whitened: cosine of centred principal components, each divided by the fourth root of its
variance. Cosine: cosine of the unchanged vectors."""


class IndexConfig(Config):
    """Index of vectors from one or several sources, for search by ear."""

    inputs = ("vectors", "add")
    outputs = ("output",)

    vectors: tuple[str, ...] = ()
    """Folders of vectors written by unfused-ray embed, all made with one encoder, by path or URI. An existing index of
    them is left unchanged."""
    output: str = ""
    """Folder of the index, by path or URI."""
    add: tuple[str, ...] = ()
    """Folders of vectors to add to the index."""
    remove: tuple[str, ...] = ()
    """Sources to remove from the index, by the path of their vectors or by their name in the index."""
    rebuild: bool = False
    """Build the index anew from its vectors, even if it is damaged (then name all of them in `vectors`)."""
    metric: IndexMetric = "whitened"
    """Measure of nearness: whitened (cosine of half-whitened principal components, which finds more clips of the same
    class), or cosine."""
    components: PositiveInt = 128
    """Largest number of principal components of the whitened metric."""
    exact_up_to: Annotated[int, Field(ge=0)] = 200_000
    """Largest number of vectors for which a search compares the query with all of them; above it, inverted lists (IVF)
    are searched."""
    quantize_above: Annotated[int, Field(ge=1_000)] = 5_000_000
    """Number of vectors above which they are stored as product-quantised codes of at most 64 bytes. This takes a
    quarter of the memory, but a search finds about nine of the ten nearest, however many lists it reads."""
    recall: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Recall of the ten nearest that a search of inverted lists should reach; it reads as many lists as that takes."""
    seed: Seed = 0
    """Seed of the sample of vectors that the index is trained on."""

    @property
    def required(self) -> Mapping[str, str]:
        """Fields that must not be empty."""
        return {"output": "a path or a URI"}

    @property
    def idle(self) -> Mapping[str, str]:
        """Fields that have no effect."""
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
    """Search of an index with one question: a file, a clip, a label, or marks."""

    model_config = ConfigDict(populate_by_name=True)
    inputs = ("index", "query", "learn", "encoder")
    outputs = ("page",)

    index: str = ""
    """Folder written by unfused-ray index, by path or URI."""
    query: str = ""
    """Audio file to search with, by path or URI."""
    first: Annotated[NonNegativeFloat, Field(alias="from")] = 0.0
    """Start of the question within the file, clip or recording, in seconds."""
    last: Annotated[PositiveFloat | None, Field(alias="to")] = None
    """End of the question, in seconds; by default the end of the file, clip or recording."""
    key: str = ""
    """Key of a clip of the index to search with, or of a recording whose pieces are clips of the index."""
    key_source: str = ""
    """Source of the key, if several sources have it."""
    label: str = ""
    """Label to search with: find clips that sound like those with this label but do not carry it."""
    learn: str = ""
    """CSV of marks to learn from, by path or URI: find the clips that a classifier of the marks would keep, and those
    that it is least sure of."""
    encoder: str = ""
    """Encoder for the query, by path or URI; empty uses the one that made the vectors, at the path recorded with
    them."""
    count: PositiveInt = 20
    """Number of recordings to find, nearest first: each appears once, the question itself never."""
    splits: tuple[str, ...] = ()
    """Splits to find clips of; empty searches all."""
    labels: tuple[str, ...] = ()
    """Labels to find clips with, at least one of them; empty searches all clips."""
    sources: tuple[str, ...] = ()
    """Sources to find clips of, by their names in the index; empty searches all."""
    min_seconds: NonNegativeFloat = 0.0
    """Shortest clip or window to find, in seconds; 0 sets no limit."""
    max_seconds: PositiveFloat | None = None
    """Longest clip or window to find, in seconds; none by default."""
    format: Literal["table", "csv", "json"] = "table"
    """Form in which the command prints the hits; the CSV has a column for marks."""
    page: str = ""
    """Page to write for listening to the hits and marking them, by path or URI; empty writes none."""

    @property
    def required(self) -> Mapping[str, str]:
        """Fields that must not be empty."""
        return {"index": "a folder written by unfused-ray index"}

    @property
    def questions(self) -> list[str]:
        """The fields that ask something; a search asks one question."""
        return [name for name in ("query", "key", "label", "learn") if getattr(self, name)]

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        given = self.questions
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
    through a codec, a filter or another sample rate, in noise, or with its edges cut off. No encoder is needed."""
    splits: tuple[str, ...] = ()
    """Splits whose clips are checked for near-copies; empty checks all."""
    against: tuple[str, ...] = ()
    """Prepared sources in which to look for near-copies, by path or URI; empty looks among the clips of `sources` other
    than the clip itself."""
    against_splits: tuple[str, ...] = ()
    """Splits of `against` in which to look; empty looks in all."""
    precision: Annotated[float, Field(gt=0, le=1)] = 0.999
    """Share of the pairs above the threshold that must be true copies, measured on altered copies of some clips."""
    output: str = ""
    """CSV file to write all pairs to, by path or URI; empty writes none."""

    @property
    def required(self) -> Mapping[str, str]:
        """Fields that must not be empty."""
        return {"sources": "folders written by unfused-ray prepare"}

    @model_validator(mode="after")
    def _splits_of_something(self) -> Self:
        if self.against_splits and not self.against:
            raise ValueError(f"against_splits={self.against_splits} are splits of --against: give that too")
        return self
