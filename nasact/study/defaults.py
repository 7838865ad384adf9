"""Defaults of the search that depend on each other: strategy, normaliser and temperature.

The rooms below are imported when a study is validated, never with this module.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

DEFAULT_STRATEGIES = ("gdas", "joint")
"""The strategy of a study that names none: the first in the ranking of docs/ranking.md; if the study names a
normaliser that this strategy does not support, the next one."""


def supported_normalisers(strategy: object) -> tuple[str, ...]:
    """The normalisers that a strategy supports, its default first; empty: all, or there is no such strategy."""
    from nasact.bilevel import STRATEGIES

    return STRATEGIES.get(strategy).normalisers if isinstance(strategy, str) and strategy in STRATEGIES else ()


def default_strategy(normaliser: object) -> str:
    """The strategy of a study that names none, with this normaliser (None: it names no normaliser either)."""
    supported = ((name, supported_normalisers(name)) for name in DEFAULT_STRATEGIES)
    return next(name for name, names in supported if normaliser is None or not names or normaliser in names)


def default_temperature(strategy: object, normaliser: object) -> dict[str, Any] | None:
    """The temperature of a study that names none, as its YAML would say it; None: constant."""
    from nasact.bilevel import STRATEGIES

    if strategy not in STRATEGIES or not isinstance(normaliser, str) or not has_temperature((normaliser,)):
        return None
    annealed = getattr(STRATEGIES.get(str(strategy)), "temperature", None)
    return None if annealed is None else dict(zip(("start", "end", "schedule"), annealed, strict=True))


def has_temperature(normalisers: Iterable[str]) -> bool:
    """Whether any of these normalisers depends on the temperature; an unknown name does not."""
    from nasact.mixture import NORMALISERS

    return any(name in NORMALISERS and NORMALISERS.get(name).tempered for name in normalisers)
