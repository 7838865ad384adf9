"""The options beside a component's name, held to what the component declares; the user's own code is not asked here.

The rooms below are imported when a study is validated, never when this module is.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from nasact.errors import NasactError, StudyError

if TYPE_CHECKING:
    from nasact.study.spec import Search

_NAMED = re.compile(r"option '(\w+)'")


def mistake(kind: str, name: str, options: Mapping[str, Any]) -> tuple[str | None, str] | None:
    """The option that the `kind` called `name` refuses (None: their combination), and why; None if all are fine."""
    try:
        if kind in ("strategy", "regulariser", "monitor", "kernel", "derivation"):
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


def refused_regulariser(search: Search, functions: tuple[str, ...]) -> tuple[int, str] | None:
    """The index of the first regulariser that would mean nothing in that search, and why; None where all serve."""
    from nasact import bilevel
    from nasact.bilevel import regularisers
    from nasact.bilevel.strategies.attach_regularisers import setting_of
    from nasact.mixture import NORMALISERS

    if not search.regularisers:
        return None
    setting = setting_of(
        bilevel.build(search.strategy.name, search.strategy.options),
        normaliser=NORMALISERS.get(search.normaliser),
        level=search.level,
        # with init: original each site's bank has a function more, which only the model tells
        functions=functions if search.init == "uniform" else None,
    )
    for index, each in enumerate(regularisers.build_regularisers(search.regularisers)):
        reason = regularisers.refusal(each, setting)
        if reason is not None:
            return index, f"regulariser {each.name!r} cannot serve here: {reason}"
    return None


def _record_mistake(kind: str, name: str, options: Mapping[str, Any]) -> tuple[str | None, str] | None:
    from nasact import bilevel, derivation, monitors
    from nasact.mixture import kernels

    builders = {
        "strategy": bilevel.build,
        "regulariser": bilevel.regularisers.build,
        "monitor": monitors.build,
        "kernel": kernels.build,
        "derivation": derivation.build,
    }
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
    from nasact.bilevel import REGULARISERS, STRATEGIES
    from nasact.derivation import DERIVATIONS
    from nasact.mixture import KERNELS
    from nasact.monitors import MONITORS
    from nasact.tasks import DATASETS, MODELS, datasets, models

    if kind == "monitor" and name in MONITORS:
        return MONITORS.get(name), ()
    if kind == "strategy" and name in STRATEGIES:
        return STRATEGIES.get(name), ()
    if kind == "derivation" and name in DERIVATIONS:
        return DERIVATIONS.get(name), ()
    if kind == "regulariser" and name in REGULARISERS:
        return REGULARISERS.get(name), ()
    if kind == "kernel" and name in KERNELS:
        return KERNELS.get(name), ()
    if kind == "dataset" and name in DATASETS:
        return DATASETS.get(name).load, datasets.GIVEN
    if kind == "model" and name in MODELS:
        return MODELS.get(name).build, models.GIVEN
    return None
