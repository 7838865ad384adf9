"""Whether a search has enough epochs for its warm-up, temperature, strategy and regularisers: checked before a step."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from nasact.bilevel import Regulariser, Strategy, registered_name
from nasact.bilevel.phases import epochs_needed, phases_of, require_phases
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
    """Raise StudyError if the search is too short for warm-up, temperature, strategy or a regulariser."""
    if warmup >= epochs:
        raise StudyError(f"search: warmup must be smaller than epochs, but got (warmup={warmup}, epochs={epochs})")
    if epochs - warmup < least_epochs(schedule):
        raise StudyError(f"search: temperature: {too_short_to_anneal(schedule, epochs, warmup)}")
    named = [
        (f"strategy {registered_name(strategy)!r}", strategy),
        *((f"regulariser {r.name!r}", r) for r in regularisers),
    ]
    if any(phases_of(part) for _, part in named):
        step_progress = progress_of_steps(examples, batch_size, epochs - warmup)
        for name, part in named:
            require_phases(part, f"search: {name}", step_progress, epochs, warmup)


def too_short_to_anneal(schedule: Schedule, epochs: int, warmup: int) -> str:
    """Why a search with fewer than `least_epochs` epochs after the warm-up cannot anneal its temperature."""
    least = least_epochs(schedule)
    return f"an annealed temperature starts in one epoch and ends in another: {epochs_needed(least, epochs, warmup)}"


def progress_of_steps(examples: int, batch_size: int, epochs: int) -> list[float]:
    """The progress at which each step after the warm-up begins, as the search loop sets it in the search state."""
    offsets = list(accumulate(batch_sizes(examples, batch_size)[:-1], initial=0))
    return [(epoch + offset / examples) / epochs for epoch in range(epochs) for offset in offsets]
