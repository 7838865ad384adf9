"""The options beside a component's name, held to what the component declares; the user's own code is not asked here.

The rooms below are imported when a study is validated, never when this module is.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Mapping
from typing import Any

from nasact.errors import NasactError, StudyError

_NAMED = re.compile(r"option '(\w+)'")


def mistake(kind: str, name: str, options: Mapping[str, Any]) -> tuple[str | None, str] | None:
    """The option that the `kind` called `name` refuses (None: their combination), and why; None if all are fine."""
    try:
        if kind in ("strategy", "kernel", "derivation"):
            return _record_mistake(kind, name, options)
        _check(kind, name, options)
    except NasactError as error:
        message = str(error).removeprefix(": ")
        named = _NAMED.search(message)
        return named.group(1) if named else None, message
    return None


def is_float(kind: str, name: str, option: str) -> bool:
    """Whether the `kind` called `name` declares `option` as a float (False for what does not exist)."""
    declared = _factory(kind, name)
    return declared is not None and typing.get_type_hints(declared[0]).get(option) is float


def _record_mistake(kind: str, name: str, options: Mapping[str, Any]) -> tuple[str | None, str] | None:
    from nasact import bilevel, derivation
    from nasact.mixture import kernels

    builders = {"strategy": bilevel.build, "kernel": kernels.build, "derivation": derivation.build}
    build: Callable[..., Any] = builders[kind]

    def refusal(part: Mapping[str, Any]) -> str | None:
        try:
            build(name, part)
        except NasactError as error:
            return str(error)
        return None

    together = refusal(options)
    if together is None:  # what an option means may depend on the others: low = -8 needs high and knots that fit it
        return None
    guilty = next((option for option, value in options.items() if refusal({option: value}) == together), None)
    return guilty, together.removeprefix(f"{guilty} ")


def _check(kind: str, name: str, options: Mapping[str, Any]) -> None:
    from nasact.tasks.options import check_options

    declared = _factory(kind, name)
    if declared is not None:
        factory, given = declared
        check_options(factory, options, given=given, place="", error=StudyError)


def _factory(kind: str, name: str) -> tuple[Callable[..., Any], tuple[str, ...]] | None:
    """What declares the options, and which of its parameters are not options; None for an import path."""
    from nasact.bilevel import STRATEGIES
    from nasact.derivation import DERIVATIONS
    from nasact.mixture import KERNELS
    from nasact.tasks import DATASETS, MODELS, datasets, models

    if kind == "strategy" and name in STRATEGIES:
        return STRATEGIES.get(name), ()
    if kind == "derivation" and name in DERIVATIONS:
        return DERIVATIONS.get(name), ()
    if kind == "kernel" and name in KERNELS:
        return KERNELS.get(name), ()
    if kind == "dataset" and name in DATASETS:
        return DATASETS.get(name).load, datasets.GIVEN
    if kind == "model" and name in MODELS:
        return MODELS.get(name).build, models.GIVEN
    return None
