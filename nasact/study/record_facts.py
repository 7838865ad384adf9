"""Facts that a study needs of registered records: what a normaliser, a schedule, an optimiser or a strategy supports.

The rooms below are imported when a study is validated, never with this module. An unknown name has none of these facts;
the validation of names reports it.
"""

from __future__ import annotations


def supported_normalisers(strategy: object) -> tuple[str, ...]:
    """The normalisers that a strategy supports, its default first; empty: all."""
    from nasact.bilevel import STRATEGIES

    return STRATEGIES.get(strategy).normalisers if isinstance(strategy, str) and strategy in STRATEGIES else ()


def has_temperature(normaliser: object) -> bool:
    """Whether the weights of a normaliser depend on the temperature."""
    from nasact.mixture import NORMALISERS

    return isinstance(normaliser, str) and normaliser in NORMALISERS and NORMALISERS.get(normaliser).tempered


def is_annealed(schedule: str) -> bool:
    """Whether a schedule leads from a start to an end."""
    from nasact.training.schedule import SCHEDULES, Annealed

    return schedule in SCHEDULES and issubclass(SCHEDULES.get(schedule), Annealed)


def has_momentum(optimiser: str) -> bool:
    """Whether an optimiser has the option `momentum`."""
    from nasact.training.optimisers import OPTIMISERS

    return optimiser in OPTIMISERS and OPTIMISERS.get(optimiser).has_momentum
