"""What strategies share in which alpha rests for a part of the search, or for all of it."""

from __future__ import annotations

from nasact.bilevel.problem import Batch
from nasact.bilevel.strategies.alternating import weight_step
from nasact.bilevel.strategies.state import SearchState, StepReport, Strategy


def alpha_moves_from(strategy: Strategy) -> float | None:
    """The progress from which on the steps of `strategy` move alpha; None: no step ever does.

    A strategy tells it by an attribute of this name. One that has none is held to moving alpha from the start.
    """
    told: float | None = getattr(strategy, "alpha_moves_from", 0.0)
    return told


def rest(state: SearchState, train: Batch) -> StepReport:
    """A step of `w` alone; betas, which are weights, go back into their bounds."""
    report = weight_step(state, train)
    state.supernet.project_()
    return report
