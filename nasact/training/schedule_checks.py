"""Whether a search is long enough for everything in it that has a length of its own: asked before its first step."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from nasact.bilevel import Regulariser, Strategy, registered_name
from nasact.bilevel.phases import needs, phases_of, require_phases
from nasact.errors import StudyError
from nasact.training.batches import batch_sizes
from nasact.training.schedule import Schedule, least_epochs


def require_long_enough(
    strategy: Strategy,
    regularisers: Sequence[Regulariser],
    schedule: Schedule,
    *,
    examples: int,
    batch_size: int,
    epochs: int,
    warmup: int,
) -> None:
    """StudyError with the reason where warm-up, temperature, strategy or a regulariser would outlast the search."""
    if warmup >= epochs:
        raise StudyError(f"search: warmup must be smaller than epochs, but got (warmup={warmup}, epochs={epochs})")
    if epochs - warmup < least_epochs(schedule):
        raise StudyError(f"search: temperature: {unreached(schedule, epochs, warmup)}")
    named = [
        (f"strategy {registered_name(strategy)!r}", strategy),
        *((f"regulariser {r.name!r}", r) for r in regularisers),
    ]
    if any(phases_of(each) for _, each in named):
        moments = progress_of_steps(examples, batch_size, epochs - warmup)
        for name, each in named:
            require_phases(each, f"search: {name}", moments, epochs, warmup)


def unreached(schedule: Schedule, epochs: int, warmup: int) -> str:
    """Why a temperature that is annealed does not fit."""
    least = least_epochs(schedule)
    return f"one that is annealed starts in one epoch and ends in another: {needs(least, epochs, warmup)}"


def progress_of_steps(examples: int, batch_size: int, epochs: int) -> list[float]:
    """The progress at which each step after the warm-up begins, as the loop tells it to the state."""
    offsets = list(accumulate(batch_sizes(examples, batch_size)[:-1], initial=0))
    return [(epoch + offset / examples) / epochs for epoch in range(epochs) for offset in offsets]
