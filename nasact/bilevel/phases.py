"""The phases that a schedule divides a search into, and whether a search is long enough for them. Knows counts only."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from nasact.errors import StudyError

_NEVER = 10**9


@dataclass(frozen=True, kw_only=True)
class SearchPhase:
    """`begin <= progress < end`, which must last an epoch at least: a shorter one has not seen the data once.

    A step must fall between `acts_from`, if that is not its begin, and its end. `what` is how messages call it,
    `option` what its length comes from.
    """

    what: str
    option: str
    begin: float = 0.0
    end: float = 1.0
    acts_from: float | None = None

    @property
    def least_epochs(self) -> int:
        """Epochs after the warm-up of the shortest search in which it lasts one."""
        # 1 / (1 / 3) may be 3 and a rounding error, and 1 / (the smallest number) infinite
        return max(1, math.ceil(min(1 / (self.end - self.begin), _NEVER) - 1e-9))

    def contains_any(self, moments: Sequence[float]) -> bool:
        """Whether it acts at one of these values of progress, which rise."""
        first = bisect_left(moments, self.begin if self.acts_from is None else self.acts_from)
        return first < len(moments) and moments[first] < self.end


def phases_of(schedule: object) -> tuple[SearchPhase, ...]:
    """What a strategy or a regulariser tells by an attribute `phases`; one that has none needs nothing of a search."""
    told: tuple[SearchPhase, ...] = getattr(schedule, "phases", ())
    return told


def least_epochs(schedule: object) -> int:
    """The smallest number of epochs after the warm-up that this strategy or regulariser can do with."""
    return max((phase.least_epochs for phase in phases_of(schedule)), default=1)


def too_short(schedule: object, epochs: int, warmup: int) -> tuple[SearchPhase, str] | None:
    """The first phase for which that many epochs are too few, and the reason; None where all have theirs."""
    for phase in phases_of(schedule):
        if epochs - warmup < phase.least_epochs:
            return phase, f"{phase.what} must last an epoch at least: {needs(phase.least_epochs, epochs, warmup)}"
    return None


def needs(least: int, epochs: int, warmup: int) -> str:
    """`that takes 4 epochs after the warm-up, but got (epochs=5, warmup=2)`."""
    if not warmup:
        return f"that takes {least} epochs, but got (epochs={epochs})"
    return f"that takes {least} epochs after the warm-up, but got (epochs={epochs}, warmup={warmup})"


def require_phases(schedule: object, name: str, moments: Sequence[float], epochs: int, warmup: int) -> None:
    """StudyError where a phase is shorter than an epoch, or acts at none of the `moments` at which a step begins."""
    found = too_short(schedule, epochs, warmup)
    if found is not None:
        raise StudyError(f"{name}: {found[0].option}: {found[1]}")
    for phase in phases_of(schedule):
        if not phase.contains_any(moments):
            raise StudyError(
                f"{name}: {phase.option}: {phase.what} gets no step: the search has {len(moments)} after its warm-up; "
                "give it more epochs or smaller batches"
            )
