"""First-order alternating search: the record that `gdas`, `drnas`, `fair`, `gaea` and `darts` of order 1 share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from nasact.bilevel.hypergradients.base import Hypergradient
from nasact.bilevel.hypergradients.first_order import first_order
from nasact.bilevel.problem import Batch, Loss, Tensors
from nasact.bilevel.strategies.alpha_penalty import with_penalty
from nasact.bilevel.strategies.base import StepReport, require_normaliser
from nasact.bilevel.strategies.state import SearchState, darts_adam, initial_state
from nasact.bilevel.strategies.steps import alpha_gradient, alternating_step
from nasact.options import require_positive

if TYPE_CHECKING:
    from nasact.supernet import Supernet


@dataclass(frozen=True, kw_only=True)
class FirstOrder:
    """DARTS with xi = 0 (Liu et al. 2019, arXiv:1806.09055, Alg. 1): first order, alternating.

    In each step alpha moves along grad_alpha Lval(w, alpha), then `w` along grad_w Ltr at the new alpha. A strategy of
    this kind is a subclass that states its normaliser, source, guarantee and options, and may override three hooks:
    `build_alpha_optimiser`, `prepare_alphas`, `alpha_penalty`.
    """

    source: ClassVar[str] = "Liu et al. 2019, arXiv:1806.09055"
    guarantee: ClassVar[str] = "the gradient of the validation loss at the current weights; order 1 in w"
    cost: ClassVar[str] = "about 2 times joint"
    normalisers: ClassVar[tuple[str, ...]] = ()

    lr: float = 3e-3

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)

    def build_alpha_optimiser(self, alphas: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimiser of the alphas. Default: DARTS' Adam."""
        return darts_adam(alphas, lr=self.lr)

    def prepare_alphas(self, alphas: list[nn.Parameter]) -> None:
        """Change the alphas in place before the first step. Default: no change."""

    def alpha_penalty(self, alphas: Tensors) -> Tensor | None:
        """Return a penalty of the alphas that is added to the validation loss, a 0-d tensor; None: no penalty."""
        return None

    def init(self, supernet: Supernet, weight_optimiser: torch.optim.Optimizer, loss: Loss) -> SearchState:
        require_normaliser(self, supernet)
        state = initial_state(supernet, weight_optimiser, loss, alpha_optimiser=self.build_alpha_optimiser)
        self.prepare_alphas(supernet.arch_parameters())
        return state

    def alpha_gradient(self, state: SearchState, train: Batch, val: Batch) -> Hypergradient:
        found = alpha_gradient(state, train, val, first_order, looks_ahead=False)
        return with_penalty(found, state.supernet.arch_parameters(), self.alpha_penalty)

    def step(self, state: SearchState, train: Batch, val: Batch) -> StepReport:
        return alternating_step(state, train, self.alpha_gradient(state, train, val))
