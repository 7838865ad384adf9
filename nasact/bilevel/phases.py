"""The parts that a schedule divides a search into, and whether a search is long enough for them. Knows counts only."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from nasact.errors import StudyError

_NEVER = 10**9


@dataclass(frozen=True, kw_only=True)
class Part:
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

    def holds_one_of(self, moments: Sequence[float]) -> bool:
        """Whether it acts at one of these values of progress, which rise."""
        first = bisect_left(moments, self.begin if self.acts_from is None else self.acts_from)
        return first < len(moments) and moments[first] < self.end


def parts_of(schedule: object) -> tuple[Part, ...]:
    """What a strategy or a regulariser tells by an attribute `parts`; one that has none needs nothing of a search."""
    told: tuple[Part, ...] = getattr(schedule, "parts", ())
    return told


def least_epochs(schedule: object) -> int:
    """The smallest number of epochs after the warm-up that this strategy or regulariser can do with."""
    return max((part.least_epochs for part in parts_of(schedule)), default=1)


def too_short(schedule: object, epochs: int, warmup: int) -> tuple[Part, str] | None:
    """The first part for which that many epochs are too few, and the reason; None where all have theirs."""
    for part in parts_of(schedule):
        if epochs - warmup < part.least_epochs:
            return part, f"{part.what} must last an epoch at least: {needs(part.least_epochs, epochs, warmup)}"
    return None


def needs(least: int, epochs: int, warmup: int) -> str:
    """`that takes 4 epochs after the warm-up, but got (epochs=5, warmup=2)`."""
    if not warmup:
        return f"that takes {least} epochs, but got (epochs={epochs})"
    return f"that takes {least} epochs after the warm-up, but got (epochs={epochs}, warmup={warmup})"


def require_parts(schedule: object, name: str, moments: Sequence[float], epochs: int, warmup: int) -> None:
    """StudyError where a part is shorter than an epoch, or acts at none of the `moments` at which a step begins."""
    found = too_short(schedule, epochs, warmup)
    if found is not None:
        raise StudyError(f"{name}: {found[0].option}: {found[1]}")
    for part in parts_of(schedule):
        if not part.holds_one_of(moments):
            raise StudyError(
                f"{name}: {part.option}: {part.what} gets no step: the search has {len(moments)} after its warm-up; "
                "give it more epochs or smaller batches"
            )
