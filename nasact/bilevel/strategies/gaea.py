"""`gaea`: alphas are the mixture weights themselves, moved on the simplex by exponentiated gradient."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch

from nasact.bilevel.hypergradients import Hypergradient, first_order
from nasact.bilevel.problem import Batch, Loss
from nasact.bilevel.strategies.alternating import alpha_gradient, alternate
from nasact.bilevel.strategies.exponentiated_gradient import ExponentiatedGradient
from nasact.bilevel.strategies.state import SearchState, StepReport, require_normaliser, start
from nasact.errors import StudyError
from nasact.options import require_positive

if TYPE_CHECKING:
    from nasact.supernet import Supernet


@dataclass(frozen=True, kw_only=True)
class GAEA:
    """Geometry-aware exponentiated gradient (Li et al. 2021, arXiv:2004.07802, Alg. 1), first order, alternating.

    Alpha down the validation loss by p <- p exp(-lr g) / sum, `w` down the training loss with the new alpha. The step
    is multiplicative and has no memory: unlike Adam's it is proportional to the gradient, which at channel and neuron
    level is smaller by the number of rows. A product never leaves zero, so a row in which a weight starts at zero (a
    start at one function) starts with the part `slack` of it shared out among all K.
    """

    source: ClassVar[str] = "Li et al. 2021, arXiv:2004.07802"
    guarantee: ClassVar[str] = "weights stay on the simplex and above zero; on a linear loss exactly softmax(-lr t g)"
    cost: ClassVar[str] = "about 2 times joint"
    normalisers: ClassVar[tuple[str, ...]] = ("convex",)
    normalisers_reason: ClassVar[str] = "its steps move the mixture weights themselves on a simplex"

    lr: float = 0.1
    slack: float = 1e-3

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)
        if not 0 < self.slack < 1:
            raise StudyError(f"slack must be between 0 and 1, but got {self.slack}")

    def init(self, supernet: Supernet, weight_optimiser: torch.optim.Optimizer, loss: Loss) -> SearchState:
        require_normaliser("gaea", self, supernet)
        state = start(
            supernet,
            weight_optimiser,
            loss,
            alpha_lr=self.lr,
            alpha_optimiser=partial(ExponentiatedGradient, lr=self.lr),
        )
        self._leave_the_border(supernet)
        return state

    @torch.no_grad()
    def _leave_the_border(self, supernet: Supernet) -> None:
        for p in supernet.arch_parameters():
            border = (p == 0).any(-1, keepdim=True)
            p.copy_(torch.where(border, (1 - self.slack) * p + self.slack / p.shape[-1], p))

    def alpha_gradient(self, state: SearchState, train: Batch, val: Batch) -> Hypergradient:
        return alpha_gradient(state, train, val, first_order, looks_ahead=False)

    def step(self, state: SearchState, train: Batch, val: Batch) -> StepReport:
        return alternate(state, train, self.alpha_gradient(state, train, val))
