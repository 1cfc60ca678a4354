"""The outcome of one part of an output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from pydantic import TypeAdapter

from unfused_ray.data.parts.rejects import Reject, Warned


class PartFile(Protocol):
    """A file that a part has written; a dataclass of plain values."""

    @property
    def file(self) -> str:
        """Name within the output."""
        ...

    @property
    def sha256(self) -> str:
        """SHA-256 of its bytes as hex digits."""
        ...

    @property
    def num_clips(self) -> int:
        """Clips that it holds."""
        ...


FileT = TypeVar("FileT", bound=PartFile)


@dataclass(frozen=True)
class PartReport(Generic[FileT]):
    """The outcome of one part."""

    file: FileT | None
    """None if every clip was set aside and nothing was written."""
    rejects: tuple[Reject, ...]
    warnings: tuple[Warned, ...] = ()

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], file_type: type[FileT]) -> PartReport[FileT]:
        """Rebuild a report from its ``asdict``."""
        file = None if raw["file"] is None else TypeAdapter(file_type).validate_python(raw["file"])
        rejects = tuple(Reject(*reject) for reject in raw["rejects"])
        return cls(file, rejects, tuple(Warned(*warned) for warned in raw["warnings"]))
