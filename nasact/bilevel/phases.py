"""The phases into which a schedule divides a search, and whether a search is long enough for them.

Knows only epochs and progress.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from nasact.errors import StudyError

_NEVER = 10**9


@dataclass(frozen=True, kw_only=True)
class SearchPhase:
    """The part `begin <= progress < end` of a search. It must last at least one epoch, so that it uses all data once.

    At least one step must fall into it; if `acts_from` is given, at least one step with `acts_from <= progress < end`.
    `what` names the phase in messages, `option` is the option that sets its length.
    """

    what: str
    option: str
    begin: float = 0.0
    end: float = 1.0
    acts_from: float | None = None

    @property
    def least_epochs(self) -> int:
        """The smallest number of epochs after the warm-up with which the phase lasts one epoch."""
        # 1 / (1 / 3) can be slightly more than 3; the inverse of the smallest number is infinite
        return max(1, math.ceil(min(1 / (self.end - self.begin), _NEVER) - 1e-9))

    def contains_any(self, step_progress: Sequence[float]) -> bool:
        """Whether the phase acts at one of these values of progress, which are in ascending order."""
        first = bisect_left(step_progress, self.begin if self.acts_from is None else self.acts_from)
        return first < len(step_progress) and step_progress[first] < self.end


def phases_of(schedule: object) -> tuple[SearchPhase, ...]:
    """Return the optional attribute `phases` of a strategy or a regulariser. Default: no phases."""
    phases: tuple[SearchPhase, ...] = getattr(schedule, "phases", ())
    return phases


def least_epochs(schedule: object) -> int:
    """Return the smallest number of epochs after the warm-up that a strategy or a regulariser needs."""
    return max((phase.least_epochs for phase in phases_of(schedule)), default=1)


def find_too_short_phase(schedule: object, epochs: int, warmup: int) -> tuple[SearchPhase, str] | None:
    """Return the first phase that would last less than an epoch, with the reason; None if the search is long enough."""
    for phase in phases_of(schedule):
        if epochs - warmup < phase.least_epochs:
            needed = epochs_needed(phase.least_epochs, epochs, warmup)
            return phase, f"{phase.what} must last an epoch at least: {needed}"
    return None


def epochs_needed(least: int, epochs: int, warmup: int) -> str:
    """Return `that takes 4 epochs after the warm-up, but got (epochs=5, warmup=2)`."""
    if not warmup:
        return f"that takes {least} epochs, but got (epochs={epochs})"
    return f"that takes {least} epochs after the warm-up, but got (epochs={epochs}, warmup={warmup})"


def require_phases(schedule: object, name: str, step_progress: Sequence[float], epochs: int, warmup: int) -> None:
    """Raise StudyError if a phase of `schedule` lasts less than an epoch or acts in no step.

    `name`: how messages call the schedule. `step_progress`: the progress at which each step begins.
    """
    too_short = find_too_short_phase(schedule, epochs, warmup)
    if too_short is not None:
        phase, reason = too_short
        raise StudyError(f"{name}: {phase.option}: {reason}")
    for phase in phases_of(schedule):
        if not phase.contains_any(step_progress):
            raise StudyError(
                f"{name}: {phase.option}: {phase.what} gets no step: the search has {len(step_progress)} after its "
                "warm-up; give it more epochs or smaller batches"
            )
