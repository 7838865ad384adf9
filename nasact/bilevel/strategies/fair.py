"""`fair`: independent gates, pushed towards 0 and 1 by a term of their own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from nasact.bilevel.hypergradients import Hypergradient, first_order
from nasact.bilevel.problem import Batch, Loss, Tensors
from nasact.bilevel.strategies.alpha_penalty import with_penalty
from nasact.bilevel.strategies.alternating import alpha_gradient, alternate
from nasact.bilevel.strategies.state import SearchState, StepReport, require_normaliser, start
from nasact.errors import StudyError
from nasact.options import require_positive

if TYPE_CHECKING:
    from nasact.supernet import Supernet


@dataclass(frozen=True, kw_only=True)
class Fair:
    """FairDARTS (Chu et al. 2020, arXiv:1911.12126): functions do not compete, each has a gate.

    First order, alternating: alpha goes down the validation loss - scale * mean((sigmoid(a) - 0.5)^2) (the paper's
    zero-one loss, with its weight of 10), the mean over all gates of all sites. The term is of sigmoid(a) at any
    temperature, so that to anneal does not change what it pushes. At a gate of exactly one half, where a uniform start
    stands, its gradient is zero: the loss decides first. Derivation keeps the largest gates, as everywhere. The
    reported validation loss is without it.
    """

    source: ClassVar[str] = "Chu et al. 2020, arXiv:1911.12126"
    guarantee: ClassVar[str] = "the gradient of the validation loss and of the gates' own term; order 1 in w"
    cost: ClassVar[str] = "about 2 times joint"
    normalisers: ClassVar[tuple[str, ...]] = ("sigmoid",)
    normalisers_reason: ClassVar[str] = "its functions do not share a sum of one"

    lr: float = 3e-3
    scale: float = 10.0

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)
        if not (math.isfinite(self.scale) and self.scale >= 0):
            raise StudyError(f"scale must be a number of at least 0, but got {self.scale}")

    def init(self, supernet: Supernet, weight_optimiser: torch.optim.Optimizer, loss: Loss) -> SearchState:
        require_normaliser("fair", self, supernet)
        return start(supernet, weight_optimiser, loss, alpha_lr=self.lr)

    def alpha_gradient(self, state: SearchState, train: Batch, val: Batch) -> Hypergradient:
        found = alpha_gradient(state, train, val, first_order, looks_ahead=False)
        return with_penalty(found, state.supernet.arch_parameters(), self.penalty) if self.scale else found

    def penalty(self, alphas: Tensors) -> Tensor:
        """The term of one alpha (..., K) a site, a 0-d tensor; at most 0."""
        gates = torch.sigmoid(torch.cat([alpha.flatten() for alpha in alphas]))
        return -self.scale * (gates - 0.5).square().mean()

    def step(self, state: SearchState, train: Batch, val: Batch) -> StepReport:
        return alternate(state, train, self.alpha_gradient(state, train, val))
