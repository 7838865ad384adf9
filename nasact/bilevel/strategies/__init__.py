"""Strategies: how `w` and alpha are updated. Frozen records of hyperparameters; to register is to be listed and tested.

Each class says its `source`, its one-line `guarantee` and its `cost`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nasact.bilevel.strategies.alpha_schedule import alpha_moves_from
from nasact.bilevel.strategies.alternating import weight_step
from nasact.bilevel.strategies.attach_regularisers import regularise
from nasact.bilevel.strategies.cycles import Cycles
from nasact.bilevel.strategies.darts import DARTS
from nasact.bilevel.strategies.drnas import DrNAS
from nasact.bilevel.strategies.exponentiated_gradient import ExponentiatedGradient
from nasact.bilevel.strategies.fair import Fair
from nasact.bilevel.strategies.gaea import GAEA
from nasact.bilevel.strategies.gdas import GDAS
from nasact.bilevel.strategies.implicit import Implicit
from nasact.bilevel.strategies.joint import Joint
from nasact.bilevel.strategies.random import Random
from nasact.bilevel.strategies.shrink import Shrink
from nasact.bilevel.strategies.state import SearchState, StepReport, Strategy, candidates_left_at_end
from nasact.bilevel.strategies.unrolled import Unrolled
from nasact.options import from_options
from nasact.registry import Registry

STRATEGIES: Registry[type[Strategy]] = Registry("strategy", "nasact list strategies")
STRATEGIES.register("joint", Joint)
STRATEGIES.register("darts", DARTS)
STRATEGIES.register("unrolled", Unrolled)
STRATEGIES.register("implicit", Implicit)
STRATEGIES.register("gdas", GDAS)
STRATEGIES.register("gaea", GAEA)
STRATEGIES.register("drnas", DrNAS)
STRATEGIES.register("fair", Fair)
STRATEGIES.register("cycles", Cycles)
STRATEGIES.register("shrink", Shrink)
STRATEGIES.register("random", Random)


def build(name: str, options: Mapping[str, Any]) -> Strategy:
    """The strategy called `name` with these options; StudyError names the option that is unknown or out of range."""
    return from_options(f"strategy {name!r}", STRATEGIES.get(name), options)


def registered_name(strategy: Strategy) -> str:
    """What messages call it: the name that it is registered under, or that of its class."""
    return next((name for name, cls in STRATEGIES.items() if type(strategy) is cls), type(strategy).__name__)


__all__ = [
    "DARTS",
    "GAEA",
    "GDAS",
    "STRATEGIES",
    "Cycles",
    "DrNAS",
    "ExponentiatedGradient",
    "Fair",
    "Implicit",
    "Joint",
    "Random",
    "SearchState",
    "Shrink",
    "StepReport",
    "Strategy",
    "Unrolled",
    "alpha_moves_from",
    "build",
    "candidates_left_at_end",
    "registered_name",
    "regularise",
    "weight_step",
]
