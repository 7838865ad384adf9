"""Options that studies give to datasets and models: checked against the signature of what receives them.

Knows python signatures only. A registered factory's annotations are its schema; a user's own function is held to names.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from nasact.errors import NasactError, did_you_mean

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter] | None:
    """The parameters that may be given by name; None where python cannot tell."""
    try:
        found = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None
    return {name: parameter for name, parameter in found.items() if parameter.kind in _NAMED}


def takes_anything(function: Callable[..., Any]) -> bool:
    """Whether the function has **kwargs, or cannot be asked."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in found)


def defaults(function: Callable[..., Any], given: tuple[str, ...]) -> dict[str, Any]:
    """Options and their defaults (`inspect.Parameter.empty` for a required one), without those nasact gives itself."""
    return {name: found.default for name, found in (parameters(function) or {}).items() if name not in given}


def check_names(
    function: Callable[..., Any],
    options: Mapping[str, Any],
    *,
    given: tuple[str, ...],
    place: str,
    error: type[NasactError],
) -> None:
    """`error` for an option the function does not take, or for a required one that is missing."""
    known = defaults(function, given)
    for name in options:
        if name not in known and not (takes_anything(function) and name not in given):
            listed = ", ".join(known) or "none"
            raise error(f"{place}: unknown option {name!r}.{did_you_mean(name, known)} (options: {listed})")
    for name, default in known.items():
        if default is inspect.Parameter.empty and name not in options:
            raise error(f"{place}: option {name!r} is missing")


def check_options(
    function: Callable[..., Any],
    options: Mapping[str, Any],
    *,
    given: tuple[str, ...],
    place: str,
    error: type[NasactError],
) -> dict[str, Any]:
    """The options as the annotations of `function` read them; `error` with name, value and expectation otherwise."""
    from pydantic import TypeAdapter, ValidationError

    check_names(function, options, given=given, place=place, error=error)
    hints = typing.get_type_hints(function, include_extras=True)
    checked: dict[str, Any] = {}
    for name, value in options.items():
        try:
            checked[name] = TypeAdapter(hints[name]).validate_python(value, strict=True)
        except ValidationError as mistake:
            wanted = " or ".join(dict.fromkeys(_expectation(detail["msg"]) for detail in mistake.errors()))
            raise error(f"{place}: option {name!r} {wanted}, but got {value!r}") from None
    return checked


def _expectation(message: str) -> str:
    return message.replace("Input should be", "must be").replace("a valid ", "a ").replace("a integer", "an integer")
