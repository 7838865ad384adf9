"""`darts`: alpha on the validation loss, w on the training loss, in turn; order 2 looks one weight step ahead."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from nasact.bilevel.differentiable_optimiser import inner_step
from nasact.bilevel.hypergradients import (
    Hypergradient,
    HypergradientFunction,
    finite_difference,
    first_order,
    second_order,
)
from nasact.bilevel.problem import Batch, Loss, trainable_weights
from nasact.bilevel.strategies.alternating import alpha_gradient, alternate, at_once
from nasact.bilevel.strategies.state import SearchState, StepReport, start
from nasact.errors import StudyError
from nasact.options import require_choice, require_positive

if TYPE_CHECKING:
    from nasact.supernet import Supernet


@dataclass(frozen=True, kw_only=True)
class DARTS:
    """Differentiable architecture search (Liu et al. 2019, arXiv:1806.09055, Alg. 1).

    Order 2 differentiates through the weight optimiser's own next step (SGD, Adam, AdamW). `mixed` says how it takes
    the mixed second derivative: `exact` by autograd, `finite_difference` as the paper does, with `difference_step`
    (the paper's 0.01) over the norm. The difference can be wrong by as much as the term itself where a candidate has
    a kink: a search with such a one starts with a UserWarning. `update`: `alternating` as the paper's Algorithm 1, the
    weights' gradient at the new alpha; `simultaneous` takes the one that order 2 has looked ahead with, at the old
    alpha: one pass over the network less.
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
            raise StudyError("update 'simultaneous' needs order 2: order 1 meets no gradient of the weights on its way")

    def init(self, supernet: Supernet, weight_optimiser: torch.optim.Optimizer, loss: Loss) -> SearchState:
        if self.order == 2:
            inner_step(weight_optimiser, trainable_weights(supernet))  # refuse an unknown optimiser now, not at step 1
            if self.mixed == "finite_difference":
                _warn_of_kinks(supernet)
        return start(supernet, weight_optimiser, loss, alpha_lr=self.lr)

    def alpha_gradient(self, state: SearchState, train: Batch, val: Batch) -> Hypergradient:
        return alpha_gradient(state, train, val, self._hypergradient, looks_ahead=self.order == 2)

    def step(self, state: SearchState, train: Batch, val: Batch) -> StepReport:
        if self.update == "simultaneous":
            return at_once(state, train, val, self._hypergradient)
        return alternate(state, train, self.alpha_gradient(state, train, val))

    @property
    def weight_steps(self) -> bool:
        return self.update == "alternating"

    @property
    def _hypergradient(self) -> HypergradientFunction:
        if self.order == 1:
            return first_order
        if self.mixed == "exact":
            return second_order
        return partial(finite_difference, step=self.difference_step)


def _warn_of_kinks(supernet: Supernet) -> None:
    """Once a search: of the first kink that the difference would step across."""
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
