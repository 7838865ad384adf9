"""Options that studies give to datasets and models, checked against the signature of the function that receives them.

Knows Python signatures only. The annotations of a registered factory are the schema of its options; of a user's own
function only the parameter names are checked.
"""

from __future__ import annotations

import inspect
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from nasact.errors import NasactError, did_you_mean

_KEYWORD_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class FactoryRecord(ABC):
    """Base of a registered record whose options are the keyword parameters of a function."""

    supplied: ClassVar[tuple[str, ...]]
    """The parameters of `factory` that nasact supplies itself; all others are options of the user."""

    @property
    @abstractmethod
    def factory(self) -> Callable[..., Any]:
        """The function whose signature declares the options."""

    @property
    def options(self) -> dict[str, Any]:
        """Options and their defaults; `inspect.Parameter.empty` marks a required option."""
        return option_defaults(self.factory, self.supplied)


def keyword_parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters that a caller can pass by name; empty if Python cannot read the signature."""
    signature = _signature(function)
    if signature is None:
        return {}
    return {name: parameter for name, parameter in signature.parameters.items() if parameter.kind in _KEYWORD_KINDS}


def accepts_any_keyword(function: Callable[..., Any]) -> bool:
    """Whether the function has **kwargs; also True if Python cannot read the signature."""
    signature = _signature(function)
    if signature is None:
        return True
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in signature.parameters.values())


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None  # some functions written in C have no signature that Python can read


def option_defaults(function: Callable[..., Any], supplied: tuple[str, ...]) -> dict[str, Any]:
    """Options and their defaults (`inspect.Parameter.empty`: required), without the parameters nasact supplies."""
    return {name: parameter.default for name, parameter in keyword_parameters(function).items() if name not in supplied}


def check_option_names(
    function: Callable[..., Any],
    options: Mapping[str, Any],
    *,
    supplied: tuple[str, ...],
    place: str,
    error: type[NasactError],
) -> None:
    """Raise `error` for an option that `function` does not accept, or for a required option that is missing."""
    known = option_defaults(function, supplied)
    for name in options:
        if name not in known and not (accepts_any_keyword(function) and name not in supplied):
            listed = ", ".join(known) or "none"
            raise error(f"{place}: unknown option {name!r}.{did_you_mean(name, known)} (options: {listed})")
    for name, default in known.items():
        if default is inspect.Parameter.empty and name not in options:
            raise error(f"{place}: option {name!r} is missing")


def check_options(
    function: Callable[..., Any],
    options: Mapping[str, Any],
    *,
    supplied: tuple[str, ...],
    place: str,
    error: type[NasactError],
) -> dict[str, Any]:
    """Return the options, validated by the annotations of `function`.

    Raise `error`, with the option's name, its value and what was expected, if one is unknown, missing or does not fit.
    """
    from pydantic import TypeAdapter, ValidationError

    check_option_names(function, options, supplied=supplied, place=place, error=error)
    annotations = typing.get_type_hints(function, include_extras=True)
    validated: dict[str, Any] = {}
    for name, value in options.items():
        try:
            validated[name] = TypeAdapter(annotations[name]).validate_python(value, strict=True)
        except ValidationError as mismatch:
            expected = " or ".join(dict.fromkeys(_expectation(detail["msg"]) for detail in mismatch.errors()))
            raise error(f"{place}: option {name!r} {expected}, but got {value!r}") from None
    return validated


def _expectation(message: str) -> str:
    """A message of pydantic as the second half of a sentence: `must be an integer`."""
    return message.replace("Input should be", "must be").replace("a valid ", "a ").replace("a integer", "an integer")
