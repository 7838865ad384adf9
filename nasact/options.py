"""Records that are chosen by name and take options (strategies, kernels, ...), and the checks of these options.

The options of a record are the fields of its dataclass. Must not know studies or YAML.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, Literal, Protocol, TypeVar, get_args, get_origin, get_type_hints

from nasact.errors import StudyError, did_you_mean
from nasact.registry import Registry

T = TypeVar("T")


class Named(Protocol):
    """A name with options: how a study names one record."""

    @property
    def name(self) -> str: ...

    @property
    def options(self) -> Mapping[str, Any]: ...


class RecordRegistry(Registry[type[T]]):
    """Names to classes of frozen records. The options of a record are its fields."""

    def build(self, name: str, options: Mapping[str, Any]) -> T:
        """The record called `name` with these options; raises StudyError if an option is unknown or out of range."""
        return from_options(f"{self.kind} {name!r}", self.get(name), options)

    def build_all(self, components: Iterable[Named]) -> tuple[T, ...]:
        """The records that a study names, in the order of the study."""
        return tuple(self.build(component.name, component.options) for component in components)


def from_options(kind: str, cls: type[T], options: Mapping[str, Any]) -> T:
    """Return `cls(**options)`; raise StudyError if an option is unknown or is not of its field's type.

    `kind` names the record in messages: `strategy 'darts'`.
    """
    known = [field.name for field in fields(cls) if field.init]  # type: ignore[arg-type]
    types = get_type_hints(cls)
    values: dict[str, Any] = {}
    for option, value in options.items():
        if option not in known:
            raise StudyError(
                f"unknown option {option!r} of {kind}.{did_you_mean(option, known)} It has: {', '.join(known)}"
            )
        values[option] = _typed(option, value, types[option])
    return cls(**values)


def require_positive(option: str, value: float) -> None:
    """Raise StudyError unless `value` is finite and above 0."""
    if not (math.isfinite(value) and value > 0):
        raise StudyError(f"{option} must be a positive number, but got {value}")


def require_at_least(option: str, value: int, least: int = 1) -> None:
    """Raise StudyError unless `value` is at least `least`."""
    if value < least:
        raise StudyError(f"{option} must be at least {least}, but got {value}")


def require_choice(option: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise StudyError unless `value` is one of `choices`, with the same type: `True` does not count as 1."""
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        expected = " or ".join(repr(choice) for choice in choices)
        near = did_you_mean(value, [str(choice) for choice in choices]) if isinstance(value, str) else ""
        raise StudyError(f"{option} must be {expected}, but got {value!r}.{near}".removesuffix("."))


def _typed(option: str, value: Any, kind: Any) -> Any:
    if get_origin(kind) is Literal:
        require_choice(option, value, get_args(kind))
        return value
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind in (str, bool) and isinstance(value, kind):
        return value
    if kind == tuple[float, ...] and isinstance(value, list | tuple):
        return tuple(_typed(option, each, float) for each in value)
    nouns = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}
    nouns[tuple[float, ...]] = "a list of numbers"
    raise StudyError(f"{option} must be {nouns.get(kind, kind)}, but got {value!r}")
