"""Validators of the names in a study's tree, as pydantic calls them: the canonical name, or a ValueError of one line.

Kinds with a row of their own in `kinds` need no function here: `named("strategy")` is their validator.
"""

from __future__ import annotations

from collections.abc import Callable

from nasact.errors import NasactError, did_you_mean
from nasact.kinds import KINDS

BASELINES = ("original", "best_single", "random_mixture")
"""The baselines that are not a single function at every site."""


def named(kind: str) -> Callable[[str], str]:
    """The validator of a name of this kind."""
    return KINDS[kind].validate


def function(name: str) -> str:
    """The canonical name of a candidate function: `swish` is `silu`."""
    from nasact.activations import get

    try:
        return get(name).name
    except NasactError as error:
        raise ValueError(str(error)) from None


def space(name: str) -> tuple[str, ...]:
    """The functions of the search space called `name`."""
    from nasact.activations import load_space

    return tuple(function(member) for member in load_space(KINDS["search space"].validate(name)))


def baseline(name: str) -> str:
    """One of BASELINES, or a candidate function that is put at every site."""
    if name in BASELINES:
        return name
    from nasact.activations import names

    try:
        return function(name)
    except ValueError:
        hint = did_you_mean(name, (*BASELINES, *names()))
        raise ValueError(f"unknown baseline {name!r}.{hint} ({', '.join(BASELINES)}, or a function)") from None
