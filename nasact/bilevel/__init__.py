"""The bilevel room: hypergradients (pure functions of one signature) and the strategies that update `w` and alpha.

Knows a supernet by its parameters, `mixtures()` and `project_()`; knows no study, no data set, no trial.
"""

from __future__ import annotations

from nasact.bilevel.differentiable_optimiser import InnerStep, inner_step
from nasact.bilevel.hypergradients import HYPERGRADIENTS, Hypergradient
from nasact.bilevel.problem import Batch, Problem, SupernetProblem, Tensors
from nasact.bilevel.regularisers import REGULARISERS, Regulariser, build_regularisers
from nasact.bilevel.search_check import check_search_moves
from nasact.bilevel.strategies import (
    DARTS,
    GAEA,
    GDAS,
    STRATEGIES,
    Cycles,
    DrNAS,
    ExponentiatedGradient,
    Fair,
    Implicit,
    Joint,
    Random,
    SearchState,
    Shrink,
    StepReport,
    Strategy,
    Unrolled,
    alpha_moves_from,
    build,
    candidates_left_at_end,
    registered_name,
    regularise,
    weight_step,
)

__all__ = [
    "DARTS",
    "GAEA",
    "GDAS",
    "HYPERGRADIENTS",
    "REGULARISERS",
    "STRATEGIES",
    "Batch",
    "Cycles",
    "DrNAS",
    "ExponentiatedGradient",
    "Fair",
    "Hypergradient",
    "Implicit",
    "InnerStep",
    "Joint",
    "Problem",
    "Random",
    "Regulariser",
    "SearchState",
    "Shrink",
    "StepReport",
    "Strategy",
    "SupernetProblem",
    "Tensors",
    "Unrolled",
    "alpha_moves_from",
    "build",
    "build_regularisers",
    "candidates_left_at_end",
    "check_search_moves",
    "inner_step",
    "registered_name",
    "regularise",
    "weight_step",
]
