"""Every name a study may use, checked in one place against the registries of the rooms below.

The registries need torch, so they are imported when a study is validated, never when this module is. Every function
here returns the canonical name or raises a ValueError whose text is the line the user reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from nasact.errors import NasactError, did_you_mean

STRATEGIES_OF_CHOICE = ("gdas", "joint")
"""What a study gets that names none: the first in the ranking of docs/algorithms.md; where it names a normaliser that
this cannot serve, the next."""
INITS = ("uniform", "original")
# engines are registered above this room, in outer/records.py; a test holds the two together
ENGINES = ("optuna",)
SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("hyperband", "median", "none")
ON_COLLAPSE = ("report", "stop", "roll_back")
BASELINES = ("original", "best_single", "random_mixture")

_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def dataset(name: str) -> str:
    from nasact.tasks import DATASETS

    return _registered_or_imported("dataset", name, DATASETS.names(), "nasact list datasets")


def model(name: str) -> str:
    from nasact.tasks import MODELS

    return _registered_or_imported("model", name, MODELS.names(), "nasact list models")


def strategy(name: str) -> str:
    from nasact.bilevel import STRATEGIES

    return _one_of("strategy", name, STRATEGIES.names(), "nasact list strategies")


def regulariser(name: str) -> str:
    from nasact.bilevel import REGULARISERS

    return _one_of("regulariser", name, REGULARISERS.names(), "nasact list regularisers")


def normalisers_of(strategy: object) -> tuple[str, ...]:
    """The normalisers that this strategy serves, its own first; none: it serves all, or there is no such strategy."""
    from nasact.bilevel import STRATEGIES

    return STRATEGIES.get(strategy).normalisers if isinstance(strategy, str) and strategy in STRATEGIES else ()


def strategy_for(normaliser: object) -> str:
    """What a study gets that names no strategy, with this normaliser or, where it is None, without one either."""
    served = ((name, normalisers_of(name)) for name in STRATEGIES_OF_CHOICE)
    return next(name for name, all_ in served if normaliser is None or not all_ or normaliser in all_)


def temperature_of(strategy: object, normaliser: object) -> dict[str, Any] | None:
    """The temperature that this strategy anneals by where a study names none; None where it is constant."""
    from nasact.bilevel import STRATEGIES
    from nasact.mixture import NORMALISERS

    if strategy not in STRATEGIES or normaliser not in NORMALISERS or not NORMALISERS.get(str(normaliser)).tempered:
        return None
    own = getattr(STRATEGIES.get(str(strategy)), "temperature", None)
    return None if own is None else dict(zip(("start", "end", "schedule"), own, strict=True))


def monitor(name: str) -> str:
    from nasact.monitors import MONITORS

    return _one_of("monitor", name, MONITORS.names(), "nasact list monitors")


def derivation(name: str) -> str:
    from nasact.derivation import DERIVATIONS

    return _one_of("derivation", name, DERIVATIONS.names(), "nasact list derivations")


def levels_of(derivation: str) -> tuple[str, ...]:
    """The levels that this derivation serves; none: it serves all."""
    from nasact.derivation import DERIVATIONS

    return DERIVATIONS.get(derivation).levels


def tempered(normalisers: Iterable[str]) -> bool:
    """Whether the temperature matters to any of these normalisers."""
    from nasact.mixture import NORMALISERS

    return any(NORMALISERS.get(name).tempered for name in normalisers)


def normaliser(name: str) -> str:
    from nasact.mixture import NORMALISERS

    return _one_of("normaliser", name, NORMALISERS.names())


def kernel(name: str) -> str:
    from nasact.mixture import KERNELS

    return _one_of("kernel", name, KERNELS.names(), "nasact list kernels")


def level(name: str) -> str:
    from nasact.mixture import LEVELS

    return _one_of("level", name, LEVELS)


def function(name: str) -> str:
    """The canonical name of a candidate function: `swish` is `silu`."""
    from nasact.activations import get

    try:
        return get(name).name
    except NasactError as error:
        raise ValueError(str(error)) from None


def space(name: str) -> tuple[str, ...]:
    """The functions of the search space called `name`."""
    from nasact.activations import load_space, space_names

    _one_of("search space", name, space_names(), "nasact list spaces")
    return tuple(function(one) for one in load_space(name))


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


def init(name: str) -> str:
    return _one_of("init", name, INITS)


def optimiser(name: str) -> str:
    from nasact.training.optimisers import OPTIMISERS

    return _one_of("optimiser", name, OPTIMISERS.names())


def schedule(name: str) -> str:
    from nasact.training.schedule import SCHEDULES

    return _one_of("schedule", name, SCHEDULES.names())


def engine(name: str) -> str:
    return _one_of("engine", name, ENGINES)


def sampler(name: str) -> str:
    return _one_of("sampler", name, SAMPLERS)


def pruner(name: str) -> str:
    return _one_of("pruner", name, PRUNERS)


def on_collapse(name: str) -> str:
    return _one_of("way to meet a collapse", name, ON_COLLAPSE)


def _one_of(kind: str, name: str, known: Iterable[str], listing: str = "") -> str:
    known = tuple(known)
    if name not in known:
        raise ValueError(
            f"unknown {kind} {name!r}.{did_you_mean(name, known)} ({listing or 'one of ' + ', '.join(known)})"
        )
    return name


def _registered_or_imported(kind: str, name: str, known: tuple[str, ...], listing: str) -> str:
    """A registered name, or an import path. What the path imports is checked when it is imported, not here."""
    if ":" not in name:
        if "." in name and not did_you_mean(name, known):
            parent, _, last = name.rpartition(".")
            raise ValueError(f"unknown {kind} {name!r}. An import path is written with a colon: '{parent}:{last}'")
        return _one_of(kind, name, known, listing)
    if not _IMPORT_PATH.fullmatch(name):
        raise ValueError(f"an import path looks like 'package.module:function', but got {name!r}")
    return name
