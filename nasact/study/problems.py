"""pydantic's errors about a tree as one line each: the place, what was expected, what was given, the nearest name.

Knows the fields of a study, and nothing of what is done with them.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from nasact.errors import StudyError, did_you_mean
from nasact.study.annotations import model_in
from nasact.study.domains import is_domain
from nasact.study.fields import field_at, scalar_paths
from nasact.study.shorthand import Path
from nasact.study.source import Source, dotted
from nasact.study.spec import TrialSpec

MOST_LINES = 10

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
    """One error: its path in the tree and what is wrong."""

    path: Path
    message: str


def study_error(problems: Iterable[Problem], source: Source | None = None) -> StudyError:
    """A StudyError with one line per problem, in the order of the file, without repeats; at most MOST_LINES of them."""
    unique = list(dict.fromkeys(problems))
    if source is not None:
        unique.sort(key=lambda problem: source.line(problem.path))
    lines = []
    for path, message in unique[:MOST_LINES]:
        place = source.place(path) if source is not None else ""
        lines.append(place + (f"{dotted(path)}: " if path else "") + message)
    if len(unique) > MOST_LINES:
        lines.append(f"... and {len(unique) - MOST_LINES} more")
    return StudyError("\n".join(lines))


def translate(error: ValidationError, written: Mapping[Path, Path] | None = None) -> list[Problem]:
    """pydantic's errors as Problems, at the paths where the user wrote the values."""
    problems = []
    for details in error.errors(include_url=False):
        path: Path = details["loc"]
        if details["type"] == "at":
            path = (*path, *details["ctx"]["path"])
        message = _message(details["type"], path, details.get("input"), details.get("ctx", {}), details["msg"])
        problems.append(Problem((written or {}).get(path, path), message))
    return problems


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
        model = model_in(field_at(path))
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
    model = model_in(field_at(path[:-1]))
    siblings = tuple(model.model_fields) if model is not None else ()
    key = path[-1]
    hint = did_you_mean(key, siblings)
    if not hint:
        homes = [dotted(home) for home in scalar_paths() if home[-1] == key]
        hint = f" It belongs at {' or '.join(repr(home) for home in homes)}." if homes else ""
    return f"unknown key {key!r}.{hint or ' The keys here are ' + ', '.join(siblings) + '.'}"


def _meant_domain(value: Any) -> str:
    """A hint for a mapping in place of a scalar: it may be a domain whose keys are all misspelt."""
    if not isinstance(value, dict) or is_domain(value):
        return ""
    return next((f".{hint}" for hint in (did_you_mean(key, _DOMAIN_KEYS) for key in value) if hint), "")
