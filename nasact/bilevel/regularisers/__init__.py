"""Regularisers: penalties added to a loss of the search, and perturbations of its weight steps.

Each is a frozen record of hyperparameters with a pure function of named tensors; must not know strategies. Each file
with a regulariser registers its record, which is then listed, accepted in studies and tested.
"""

from __future__ import annotations

from nasact.bilevel.regularisers.base import REGULARISERS, Penalty, Perturbation, Regulariser, SearchSetting
from nasact.bilevel.regularisers.penalised_loss import penalised, perturbations, refusal, require_supported
from nasact.registry import import_submodules

import_submodules(__name__, __path__)
build = REGULARISERS.build
build_regularisers = REGULARISERS.build_all

__all__ = [
    "REGULARISERS",
    "Penalty",
    "Perturbation",
    "Regulariser",
    "SearchSetting",
    "build",
    "build_regularisers",
    "penalised",
    "perturbations",
    "refusal",
    "require_supported",
]
