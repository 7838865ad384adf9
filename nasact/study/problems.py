"""pydantic's complaints about a tree, told as nasact tells them: the place, what was expected, what came, what is near.

Knows the models of `spec`, and nothing of what is done with them.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from nasact.errors import StudyError, did_you_mean
from nasact.study.domains import is_domain
from nasact.study.shorthand import Path
from nasact.study.source import Source, dotted
from nasact.study.spec import Component, TrialSpec

MOST = 10

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "finite_number": "a finite number",
    "dict_type": "a mapping",
}
_BOUNDS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
_DOMAIN_KEYS = ("low", "high", "choice", "subset")


class Problem(typing.NamedTuple):
    """One complaint: where, and what."""

    path: Path
    message: str


def study_error(problems: Iterable[Problem], source: Source | None = None) -> StudyError:
    """One line a problem, in the order of the file, without repeats; at most MOST of them."""
    unique = list(dict.fromkeys(problems))
    if source is not None:
        unique.sort(key=lambda problem: source.line(problem.path))
    lines = []
    for path, message in unique[:MOST]:
        place = source.place(path) if source is not None else ""
        lines.append(place + (f"{dotted(path)}: " if path else "") + message)
    if len(unique) > MOST:
        lines.append(f"... and {len(unique) - MOST} more")
    return StudyError("\n".join(lines))


def translate(error: ValidationError, written: Mapping[Path, Path] | None = None) -> list[Problem]:
    """Each of pydantic's errors as a Problem, at the path where the user wrote the value."""
    problems = []
    for details in error.errors(include_url=False):
        path: Path = details["loc"]
        if details["type"] == "at":
            path = (*path, *details["ctx"]["path"])
        message = _message(details["type"], path, details.get("input"), details.get("ctx", {}), details["msg"])
        problems.append(Problem((written or {}).get(path, path), message))
    return problems


def field_at(path: Path) -> Any:
    """What TrialSpec declares at a path: a type, or None where it declares nothing (an option of a component)."""
    here: Any = TrialSpec
    for part in path:
        model = _model(here)
        if model is not None and issubclass(model, Component) and part != "name":
            return None
        if model is not None and part in model.model_fields:
            here = model.model_fields[str(part)].annotation
        elif isinstance(part, int) and typing.get_origin(here) is tuple:
            here = typing.get_args(here)[0]
        else:
            return None
    kinds = [kind for kind in _alternatives(here) if kind is not type(None)]
    return kinds[0] if len(kinds) == 1 else here


def shown(value: Any, width: int = 60) -> str:
    """A value as the user would write it, cut to a readable length."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        text = "{" + ", ".join(f"{key}: {shown(entry, width)}" for key, entry in value.items()) + "}"
    elif isinstance(value, list | tuple):
        text = "[" + ", ".join(shown(entry, width) for entry in value) + "]"
    else:
        text = repr(value)
    return text if len(text) <= width else text[: width - 3] + "..."


def _message(kind: str, path: Path, value: Any, context: Mapping[str, Any], text: str) -> str:
    if kind == "extra_forbidden":
        return _unknown_key(path)
    if kind == "missing":
        return "is required, but missing"
    if kind in ("value_error", "at"):
        return str(context.get("error", context.get("message", text)))
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, but got {shown(value)}{_meant_domain(value)}"
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return f"must be {words} {context[key]:g}, but got {shown(value)}"
    if kind in ("model_type", "model_attributes_type"):
        model = _model(field_at(path))
        named = model is not None and "name" in model.model_fields and model is not TrialSpec
        return f"expected {'a name, or a mapping with a `name`' if named else 'a mapping'}, but got {shown(value)}"
    if kind == "string_pattern_mismatch":
        return f"must be letters, digits, '.', '_' or '-', and begin with a letter or digit, but got {shown(value)}"
    if kind in ("string_too_short", "string_too_long"):
        limit = (
            "must not be empty" if kind.endswith("short") else f"must have at most {context['max_length']} characters"
        )
        return f"{limit}, but got {shown(value)}"
    return f"{text}, but got {shown(value)}"


def _unknown_key(path: Path) -> str:
    model = _model(field_at(path[:-1]))
    siblings = tuple(model.model_fields) if model is not None else ()
    key = path[-1]
    hint = did_you_mean(key, siblings)
    if not hint:
        homes = [dotted(home) for home in _paths(TrialSpec) if home[-1] == key]
        hint = f" It belongs at {' or '.join(repr(home) for home in homes)}." if homes else ""
    return f"unknown key {key!r}.{hint or ' The keys here are ' + ', '.join(siblings) + '.'}"


def _meant_domain(value: Any) -> str:
    """A mapping where a scalar belongs may be a domain whose keys are all misspelt."""
    if not isinstance(value, dict) or is_domain(value):
        return ""
    return next((f".{hint}" for hint in (did_you_mean(key, _DOMAIN_KEYS) for key in value) if hint), "")


def _paths(model: type[BaseModel], path: Path = ()) -> Iterable[Path]:
    for name, info in model.model_fields.items():
        inner = _model(info.annotation)
        if inner is None:
            yield (*path, name)
        elif not issubclass(inner, Component):
            yield from _paths(inner, (*path, name))


def _model(annotation: Any) -> type[BaseModel] | None:
    for kind in _alternatives(annotation):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union (`X | None`), without their Annotated wrapping; a plain type stands alone."""
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(kind for member in typing.get_args(annotation) for kind in _alternatives(member))
    return (annotation,)
