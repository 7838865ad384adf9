"""Defaults of the search that depend on each other: strategy, normaliser and temperature.

The rooms below are imported when a study is validated, never with this module.
"""

from __future__ import annotations

from typing import Any

from nasact.study.record_facts import has_temperature, supported_normalisers

DEFAULT_STRATEGIES = ("gdas", "joint")
"""The strategy of a study that names none: the first in the ranking of docs/ranking.md; if the study names a
normaliser that this strategy does not support, the next one."""


def default_strategy(normaliser: object) -> str:
    """The strategy of a study that names none, with this normaliser (None: it names no normaliser either)."""
    supported = ((name, supported_normalisers(name)) for name in DEFAULT_STRATEGIES)
    return next(name for name, names in supported if normaliser is None or not names or normaliser in names)


def default_temperature(strategy: object, normaliser: object) -> dict[str, Any] | None:
    """The temperature of a study that names none, as its YAML would say it; None: constant."""
    from nasact import bilevel

    if strategy not in bilevel.STRATEGIES or not has_temperature(normaliser):
        return None
    annealed = bilevel.default_temperature(bilevel.STRATEGIES.get(str(strategy)))
    return None if annealed is None else dict(zip(("start", "end", "schedule"), annealed, strict=True))
