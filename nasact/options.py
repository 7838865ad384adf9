"""A record's options (of a strategy, a kernel): checked against the fields of its dataclass, told in one line.

Knows no study and no YAML.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from nasact.errors import StudyError, did_you_mean

T = TypeVar("T")


def from_options(kind: str, cls: type[T], options: Mapping[str, Any]) -> T:
    """`cls(**options)` where every option is known and of its field's type; `kind` is what messages call it."""
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
    if not (math.isfinite(value) and value > 0):
        raise StudyError(f"{option} must be a positive number, but got {value}")


def require_choice(option: str, value: object, choices: tuple[object, ...]) -> None:
    """`True` is no 1 here, though Python says it is."""
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
