"""Regularisers: terms that join a loss of the search, and what perturbs a weight step. To register is to be listed.

Each is a frozen record of hyperparameters and a pure function of named tensors; knows no strategy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from nasact.bilevel.regularisers.base import Penalty, Perturbation, Regulariser, RegulariserContext, Setting
from nasact.bilevel.regularisers.beta_decay import BetaDecay
from nasact.bilevel.regularisers.entropy import Entropy
from nasact.bilevel.regularisers.l2 import L2
from nasact.bilevel.regularisers.layer_mean import LayerMean
from nasact.bilevel.regularisers.penalised_loss import penalised, penalties, perturbations, refusal, require_supported
from nasact.bilevel.regularisers.sdarts import SDARTS
from nasact.bilevel.regularisers.spectral import Spectral
from nasact.options import from_options
from nasact.registry import Registry

REGULARISERS: Registry[type[Regulariser]] = Registry("regulariser", "nasact list regularisers")
REGULARISERS.register("entropy", Entropy)
REGULARISERS.register("beta_decay", BetaDecay)
REGULARISERS.register("spectral", Spectral)
REGULARISERS.register("l2", L2)
REGULARISERS.register("layer_mean", LayerMean)
REGULARISERS.register("sdarts", SDARTS)


def build(name: str, options: Mapping[str, Any]) -> Regulariser:
    """The regulariser called `name` with these options; StudyError names the option that is unknown or out of range."""
    return from_options(f"regulariser {name!r}", REGULARISERS.get(name), options)


class Named(Protocol):
    """What a study says about one regulariser."""

    @property
    def name(self) -> str: ...

    @property
    def options(self) -> Mapping[str, Any]: ...


def build_regularisers(wanted: Iterable[Named]) -> tuple[Regulariser, ...]:
    return tuple(build(each.name, each.options) for each in wanted)


__all__ = [
    "L2",
    "REGULARISERS",
    "SDARTS",
    "BetaDecay",
    "Entropy",
    "LayerMean",
    "Penalty",
    "Perturbation",
    "Regulariser",
    "RegulariserContext",
    "Setting",
    "Spectral",
    "build",
    "build_regularisers",
    "penalised",
    "penalties",
    "perturbations",
    "refusal",
    "require_supported",
]
