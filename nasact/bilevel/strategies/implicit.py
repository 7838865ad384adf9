"""`implicit`: the gradient of alpha as if the weights were fully trained, by the implicit function theorem."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from nasact.bilevel.hypergradients.base import Hypergradient, HypergradientFunction
from nasact.bilevel.hypergradients.implicit import (
    ImplicitHypergradient,
    Solve,
    implicit_conjugate_gradient,
    implicit_neumann,
    require_options,
)
from nasact.bilevel.problem import Batch, Loss
from nasact.bilevel.strategies.base import STRATEGIES, StepReport
from nasact.bilevel.strategies.state import SearchState, darts_adam, initial_state
from nasact.bilevel.strategies.steps import alpha_gradient, alternating_step
from nasact.options import require_choice, require_positive

if TYPE_CHECKING:
    from nasact.supernet import Supernet

logger = logging.getLogger(__name__)


@dataclass
class ImplicitState(SearchState):
    """A search state that also holds whether the warning of an untrusted inverse was logged."""

    warned: bool = False


@dataclass(frozen=True, kw_only=True)
class Implicit:
    """grad_alpha Lval - (d2 Ltr / d alpha dw) H^-1 grad_w Lval (Lorraine et al. 2020, arXiv:1911.02590, Alg. 2 and 3).

    H = d2 Ltr / dw2 + `damping` I on the training batch. Every weight optimiser is supported; its weight decay is not
    part of Ltr and must be given as `damping`. `method` computes the product with the inverse in `iterations`
    Hessian-vector products: `neumann` by a series with `neumann_step` (must be below 2 / the largest eigenvalue of H;
    the learning rate of the weights is a good choice), `conjugate_gradient` down to `tolerance`. Conjugate gradient
    stops at negative curvature: without damping a network often gets only the first-order part. A search logs one
    warning if that happens or if the series grows.
    """

    source: ClassVar[str] = "Lorraine et al. 2020, arXiv:1911.02590"
    guarantee: ClassVar[str] = "exact if the weights are fully trained and the inverse has converged"
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
        state = initial_state(supernet, weight_optimiser, loss, alpha_optimiser=partial(darts_adam, lr=self.lr))
        return ImplicitState(**vars(state))

    def alpha_gradient(self, state: SearchState, train: Batch, val: Batch) -> Hypergradient:
        found = alpha_gradient(state, train, val, self._hypergradient, looks_ahead=False)
        if isinstance(found, ImplicitHypergradient) and isinstance(state, ImplicitState):
            self._warn_if_untrusted(state, found.solve)
        return found

    def step(self, state: SearchState, train: Batch, val: Batch) -> StepReport:
        return alternating_step(state, train, self.alpha_gradient(state, train, val))

    @property
    def _hypergradient(self) -> HypergradientFunction:
        if self.method == "neumann":
            return partial(implicit_neumann, iterations=self.iterations, step=self.neumann_step, damping=self.damping)
        return partial(
            implicit_conjugate_gradient, iterations=self.iterations, tolerance=self.tolerance, damping=self.damping
        )

    def _warn_if_untrusted(self, state: ImplicitState, solve: Solve) -> None:
        if state.warned or solve.trusted:
            return
        state.warned = True
        if solve.negative_curvature:
            reason = f"it stops at negative curvature after {solve.iterations} iterations; use a larger damping"
        else:
            reason = f"the series grows, to {solve.residual:.3g} times its start; use a smaller neumann_step or damping"
        logger.warning("strategy 'implicit', step %d: the inverse cannot be trusted: %s", state.step + 1, reason)


STRATEGIES.register("implicit", Implicit)
