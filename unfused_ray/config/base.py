"""Base of all configurations: validation, dotted names, and the wording of error messages."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Self, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Config(BaseModel):
    """Base of all configurations: immutable, without unknown fields; defaults are checked like given values.

    Fields of a nested configuration have dotted names: ``optimizer.lr``.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    inputs: ClassVar[tuple[str, ...]] = ()
    """Fields that name files and folders to read."""
    outputs: ClassVar[tuple[str, ...]] = ()
    """Fields that name folders to write to."""

    @model_validator(mode="before")
    @classmethod
    def _paths(cls, values: Any) -> Any:
        """Accept a single path where a field holds several, and :class:`pathlib.Path` wherever a string is."""
        if not isinstance(values, dict):
            return values
        several = {name for name in cls.inputs if get_origin(cls.model_fields[name].annotation) is tuple}
        texts = {name: _text_of_path(each) for name, each in values.items()}
        return {name: (each,) if name in several and isinstance(each, str) else each for name, each in texts.items()}

    @property
    def required(self) -> Mapping[str, str]:
        """Fields that must not be empty when the job runs, each with a description of its value."""
        return {}

    @property
    def idle(self) -> Mapping[str, str]:
        """Fields that have no effect, because of the values of others: the reason, by dotted name.

        When the job runs, these fields must have their defaults.
        """
        return {}

    def digest(self) -> str:
        """Sixteen hex digits that identify the values of this configuration."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def get(self, name: str) -> Any:
        """Return the value of a field, by its dotted name; a nested configuration is a value too.

        Raises:
            ValueError: there is no such field; names the closest ones.
        """
        value: Any = self
        for part in name.split("."):
            if not isinstance(value, Config) or part not in type(value).model_fields:
                raise ValueError(_no_field(name, self))
            value = getattr(value, part)
        return value

    def flat(self) -> dict[str, Any]:
        """Return every single value by its dotted name."""
        return flatten(self.model_dump())

    def replace(self, changes: Mapping[str, Any] | None = None, /, **fields: Any) -> Self:
        """Return a validated copy with changed values, applied in the order given.

        Args:
            changes: values by dotted name. A value for a nested configuration replaces it as a whole: it is a
                configuration, or a dictionary, whose missing fields take their defaults.
            fields: the same, for names without dots.

        Raises:
            ValueError: there is no such field, or the values are refused; names field, value and rule.
        """
        values = self.model_dump()
        for name, value in {**(changes or {}), **fields}.items():
            *groups, field = name.split(".")
            place: Any = values
            for group in groups:
                place = place.get(group) if isinstance(place, dict) else None
            if not isinstance(place, dict) or field not in place:
                raise ValueError(_no_field(name, self))
            place[field] = value.model_dump() if isinstance(value, Config) else deepcopy(value)
        try:
            return type(self).model_validate(values)
        except ValidationError as error:
            raise ValueError(explain(error)) from error


def _text_of_path(value: Any) -> Any:
    """Return a path, and each path of a list or tuple, as a string; anything else is returned unchanged."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple) and any(isinstance(each, os.PathLike) for each in value):
        return [_text_of_path(each) for each in value]
    return value


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten nested mappings: return every value that is not a mapping, by its dotted name."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": each for inner, each in flatten(value).items()}
        else:
            flat[name] = value
    return flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """Return the values that differ between two nested mappings of JSON values: ``name: old → new``, by dotted name."""
    before, after = flatten(old), flatten(new)
    return {
        name: f"{name}: {json.dumps(before.get(name))} → {json.dumps(after.get(name))}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }


def within(name: str, names: Iterable[str]) -> bool:
    """Return True if a dotted name is one of ``names``, or lies in a nested configuration that is."""
    return any(name == each or name.startswith(f"{each}.") for each in names)


def idle_fields(config: Config) -> Iterator[tuple[str, object, str]]:
    """Yield each field, also nested, that has no effect but not its default value: dotted name, value and reason."""
    for name, why in config.idle.items():
        group, _, field = name.rpartition(".")
        usual = type(config.get(group) if group else config).model_fields[field].default
        if (value := config.get(name)) != usual:
            yield name, value, why
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Config):
            yield from ((f"{name}.{inner}", each, why) for inner, each, why in idle_fields(value))


def explain(error: ValidationError) -> str:
    """Word a validation error: one line for each of its errors, with field, value and rule."""
    lines, kinds = [], _kinds(Config)
    places = [details["loc"] for details in error.errors()]
    for details in error.errors():
        place = details["loc"]
        if details["type"] == "too_short" and any(other[:-1] == place for other in places):
            continue  # it counts only the items that have no error of their own
        field = ".".join(str(part) for part in place if part not in kinds)
        message = details["msg"].removeprefix("Value error, ")
        if details["type"] == "union_tag_not_found":
            lines.append(f"{field}={details['input']!r} has no 'kind': name it too, or change {field}.FIELD")
        elif details["type"] == "union_tag_invalid":
            lines.append(f"{field}.kind={details['ctx']['tag']!r} is not one of {details['ctx']['expected_tags']}")
        elif details["type"] == "missing":  # the input of this error is the whole mapping
            lines.append(f"{field}: {message}")
        elif details["type"] == "value_error":  # from our own validators, whose messages name the value
            lines.append(f"{field}: {message}" if field else message)
        else:
            lines.append(f"{field}={details['input']!r}: {message}")
    return "\n".join(lines)


def _kinds(config: type[Config]) -> set[str]:
    """Collect the ``kind`` of every configuration that has one; pydantic puts kinds into the paths of its errors."""
    own = {config.model_fields["kind"].default} if "kind" in config.model_fields else set()
    return own.union(*map(_kinds, config.__subclasses__()))


def _no_field(name: str, config: Config) -> str:
    known = list(_names(config))
    last = name.rpartition(".")[2]
    close = [each for each in known if each.rpartition(".")[2] == last] or get_close_matches(name, known)
    return f"{name} is no field of {type(config).__name__}" + (f": did you mean {', '.join(close)}?" if close else "")


def _names(config: Config) -> Iterable[str]:
    """Yield the dotted names of all fields, also of nested configurations."""
    for name in type(config).model_fields:
        yield name
        value = getattr(config, name)
        if isinstance(value, Config):
            yield from (f"{name}.{inner}" for inner in _names(value))
