"""Strategies: how `w` and alpha are updated. Frozen records of hyperparameters.

Each file with a strategy registers its record, which is then listed, accepted in studies and tested. A record states
its `source`, its `guarantee` in one line and its `cost`.
"""

from __future__ import annotations

from nasact.bilevel.strategies.attach_regularisers import regularise
from nasact.bilevel.strategies.base import (
    STRATEGIES,
    StepReport,
    Strategy,
    alpha_moves_from,
    default_temperature,
    registered_name,
    remaining_candidates,
)
from nasact.bilevel.strategies.state import SearchState
from nasact.bilevel.strategies.steps import weight_step
from nasact.registry import import_submodules

import_submodules(__name__, __path__)
build = STRATEGIES.build

__all__ = [
    "STRATEGIES",
    "SearchState",
    "StepReport",
    "Strategy",
    "alpha_moves_from",
    "build",
    "default_temperature",
    "registered_name",
    "regularise",
    "remaining_candidates",
    "weight_step",
]
