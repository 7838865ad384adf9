"""`darts`: alpha minimises the validation loss, `w` the training loss; order 2 looks one weight step ahead."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from nasact.bilevel.differentiable_optimiser import inner_step
from nasact.bilevel.hypergradients.base import Hypergradient, HypergradientFunction
from nasact.bilevel.hypergradients.finite_difference import finite_difference
from nasact.bilevel.hypergradients.second_order import second_order
from nasact.bilevel.problem import Batch, Loss, trainable_weights
from nasact.bilevel.strategies.base import STRATEGIES, StepReport
from nasact.bilevel.strategies.first_order_alternating import FirstOrder
from nasact.bilevel.strategies.state import SearchState, darts_adam, initial_state
from nasact.bilevel.strategies.steps import alpha_gradient, alternating_step, simultaneous_step
from nasact.errors import StudyError
from nasact.options import require_choice, require_positive

if TYPE_CHECKING:
    from nasact.supernet import Supernet


@dataclass(frozen=True, kw_only=True)
class DARTS:
    """Differentiable architecture search (Liu et al. 2019, arXiv:1806.09055, Alg. 1).

    Order 1 is `FirstOrder`. Order 2 differentiates through the next step of the weight optimiser (SGD, Adam, AdamW).
    `mixed`: how order 2 computes the mixed second derivative. `exact`: by autograd. `finite_difference`: as the paper,
    with step `difference_step` (the paper's 0.01) over the norm; its error can be as large as the second-order term if
    a candidate has a kink, and a search with such a candidate starts with a UserWarning. `update`: `alternating`, as in
    the paper's Algorithm 1, uses the gradient of the weights at the new alpha; `simultaneous` uses that of the
    look-ahead, at the old alpha, and saves one pass over the network.
    """

    source: ClassVar[str] = "Liu et al. 2019, arXiv:1806.09055"
    guarantee: ClassVar[str] = "order 2 is the exact gradient through the optimiser's own next step; order 1 ignores it"
    cost: ClassVar[str] = "order 1: about 2 times joint; order 2: about 4 times, 3 with simultaneous updates"
    normalisers: ClassVar[tuple[str, ...]] = ()

    order: Literal[1, 2] = 2
    lr: float = 3e-3
    mixed: Literal["exact", "finite_difference"] = "exact"
    difference_step: float = 0.01
    update: Literal["alternating", "simultaneous"] = "alternating"

    def __post_init__(self) -> None:
        require_choice("order", self.order, (1, 2))
        require_positive("lr", self.lr)
        require_choice("mixed", self.mixed, ("exact", "finite_difference"))
        require_positive("difference_step", self.difference_step)
        require_choice("update", self.update, ("alternating", "simultaneous"))
        if self.update == "simultaneous" and self.order == 1:
            raise StudyError("update 'simultaneous' needs order 2: order 1 computes no gradient of the weights")

    def init(self, supernet: Supernet, weight_optimiser: torch.optim.Optimizer, loss: Loss) -> SearchState:
        if self.order == 1:
            return self._first_order.init(supernet, weight_optimiser, loss)
        inner_step(weight_optimiser, trainable_weights(supernet))  # refuse an unknown optimiser before the first step
        if self.mixed == "finite_difference":
            _warn_of_kinks(supernet)
        return initial_state(supernet, weight_optimiser, loss, alpha_optimiser=partial(darts_adam, lr=self.lr))

    def alpha_gradient(self, state: SearchState, train: Batch, val: Batch) -> Hypergradient:
        if self.order == 1:
            return self._first_order.alpha_gradient(state, train, val)
        return alpha_gradient(state, train, val, self._second_order, looks_ahead=True)

    def step(self, state: SearchState, train: Batch, val: Batch) -> StepReport:
        if self.order == 1:
            return self._first_order.step(state, train, val)
        if self.update == "simultaneous":
            return simultaneous_step(state, train, val, self._second_order)
        return alternating_step(state, train, self.alpha_gradient(state, train, val))

    @property
    def weight_steps(self) -> bool:
        return self.update == "alternating"

    @property
    def _first_order(self) -> FirstOrder:
        return FirstOrder(lr=self.lr)

    @property
    def _second_order(self) -> HypergradientFunction:
        if self.mixed == "exact":
            return second_order
        return partial(finite_difference, step=self.difference_step)


def _warn_of_kinks(supernet: Supernet) -> None:
    """Warn of the first candidate with a kink."""
    for site, mixture in supernet.mixtures().items():
        for candidate in mixture.bank.candidates():
            if candidate.kinks:
                kinks = ", ".join(f"{kink:g}" for kink in candidate.kinks)
                warnings.warn(
                    f"site {site!r}: candidate {candidate.name!r} has a kink at {kinks}: mixed 'finite_difference' "
                    "can be wrong by as much as the second-order term itself; use mixed 'exact'",
                    stacklevel=3,
                )
                return


STRATEGIES.register("darts", DARTS)
