"""Bilevel optimisation: hypergradients, regularisers, and the strategies that update `w` and alpha.

Knows a supernet by its parameters, `mixtures()` and `project_()`; must not know studies, datasets or trials.
"""

from __future__ import annotations

from nasact.bilevel.hypergradients import HYPERGRADIENTS
from nasact.bilevel.problem import Batch, SupernetProblem
from nasact.bilevel.regularisers import REGULARISERS, Regulariser, build_regularisers
from nasact.bilevel.search_check import check_search_moves
from nasact.bilevel.strategies import (
    STRATEGIES,
    SearchState,
    StepReport,
    Strategy,
    build,
    default_temperature,
    registered_name,
    regularise,
    remaining_candidates,
    weight_step,
)

__all__ = [
    "HYPERGRADIENTS",
    "REGULARISERS",
    "STRATEGIES",
    "Batch",
    "Regulariser",
    "SearchState",
    "StepReport",
    "Strategy",
    "SupernetProblem",
    "build",
    "build_regularisers",
    "check_search_moves",
    "default_temperature",
    "registered_name",
    "regularise",
    "remaining_candidates",
    "weight_step",
]
