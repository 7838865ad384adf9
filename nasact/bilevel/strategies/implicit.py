"""`implicit`: alpha's gradient as if the weights had been trained to their end, by the implicit function theorem."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from nasact.bilevel.hypergradients import (
    Hypergradient,
    HypergradientFunction,
    ImplicitHypergradient,
    implicit_conjugate_gradient,
    implicit_neumann,
)
from nasact.bilevel.hypergradients.implicit import require_options
from nasact.bilevel.problem import Batch, Loss
from nasact.bilevel.strategies.alternating import alpha_gradient, alternate
from nasact.bilevel.strategies.state import SearchState, StepReport, start
from nasact.options import require_choice, require_positive

if TYPE_CHECKING:
    from nasact.supernet import Supernet

logger = logging.getLogger(__name__)


@dataclass
class ImplicitState(SearchState):
    """A search that remembers whether it has told that the inverse cannot be trusted: once is enough."""

    told: bool = False


@dataclass(frozen=True, kw_only=True)
class Implicit:
    """grad_alpha Lval - (d2 Ltr / d alpha dw) H^-1 grad_w Lval (Lorraine et al. 2020, arXiv:1911.02590, Alg. 2 and 3).

    H = d2 Ltr / dw2 + `damping` I on the training batch; any weight optimiser serves, and its weight decay counts only
    as `damping`. `method` inverts by `iterations` Hessian-vector products: `neumann` as a series with `neumann_step`
    (below 2 / the largest eigenvalue of H: the weights' learning rate is a fair choice), `conjugate_gradient` down to
    `tolerance`. That one ends at negative curvature, with what it has: without damping a network often leaves it only
    the first-order part. A search logs one warning where that happens, or where the series grows.
    """

    source: ClassVar[str] = "Lorraine et al. 2020, arXiv:1911.02590"
    guarantee: ClassVar[str] = "exact where the weights are trained to their end and the inverse has converged"
    cost: ClassVar[str] = "about 7 times joint, and 2 more for each of `iterations`"
    normalisers: ClassVar[tuple[str, ...]] = ()

    method: Literal["neumann", "conjugate_gradient"] = "neumann"
    iterations: int = 10
    neumann_step: float = 0.01
    tolerance: float = 1e-6
    damping: float = 0.0
    lr: float = 3e-3

    def __post_init__(self) -> None:
        require_choice("method", self.method, ("neumann", "conjugate_gradient"))
        require_options(iterations=self.iterations, damping=self.damping, tolerance=self.tolerance)
        require_positive("neumann_step", self.neumann_step)
        require_positive("lr", self.lr)

    def init(self, supernet: Supernet, weight_optimiser: torch.optim.Optimizer, loss: Loss) -> ImplicitState:
        state = start(supernet, weight_optimiser, loss, alpha_lr=self.lr)
        return ImplicitState(**vars(state))

    def alpha_gradient(self, state: SearchState, train: Batch, val: Batch) -> Hypergradient:
        found = alpha_gradient(state, train, val, self._hypergradient, looks_ahead=False)
        if isinstance(found, ImplicitHypergradient) and isinstance(state, ImplicitState):
            self._tell(state, found)
        return found

    def step(self, state: SearchState, train: Batch, val: Batch) -> StepReport:
        return alternate(state, train, self.alpha_gradient(state, train, val))

    @property
    def _hypergradient(self) -> HypergradientFunction:
        if self.method == "neumann":
            return partial(implicit_neumann, iterations=self.iterations, step=self.neumann_step, damping=self.damping)
        return partial(
            implicit_conjugate_gradient, iterations=self.iterations, tolerance=self.tolerance, damping=self.damping
        )

    def _tell(self, state: ImplicitState, found: ImplicitHypergradient) -> None:
        solve = found.solve
        if state.told or solve.trusted:
            return
        state.told = True
        if solve.negative_curvature:
            reason = f"it ends at negative curvature after {solve.iterations} iterations; use a larger damping"
        else:
            reason = f"the series grows, to {solve.residual:.3g} times its start; use a smaller neumann_step or damping"
        logger.warning("strategy 'implicit', step %d: the inverse cannot be trusted: %s", state.step + 1, reason)
