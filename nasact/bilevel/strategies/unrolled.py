"""`unrolled`: as `darts` of order 2, but through one or several weight steps and by plain autograd."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch

from nasact.bilevel.differentiable_optimiser import inner_step
from nasact.bilevel.hypergradients.base import Hypergradient
from nasact.bilevel.hypergradients.unrolled import unrolled
from nasact.bilevel.problem import Batch, Loss, trainable_weights
from nasact.bilevel.strategies.base import STRATEGIES, StepReport
from nasact.bilevel.strategies.state import SearchState, darts_adam, initial_state
from nasact.bilevel.strategies.steps import alpha_gradient, alternating_step
from nasact.errors import StudyError
from nasact.options import require_positive

if TYPE_CHECKING:
    from nasact.supernet import Supernet


@dataclass(frozen=True, kw_only=True)
class Unrolled:
    """The gradient of alpha through `steps` virtual weight steps on the training batch, with the whole autograd graph.

    With one step it is the oracle in the tests of `darts` of order 2; more steps look further ahead and need more
    memory.
    """

    source: ClassVar[str] = "reverse-mode hyperparameter gradients, Franceschi et al. 2017, arXiv:1703.01785"
    guarantee: ClassVar[str] = "the exact gradient through the next `steps` steps of the weight optimiser"
    cost: ClassVar[str] = "about 5 times joint, 3 more for each further step, and the memory of all steps together"
    normalisers: ClassVar[tuple[str, ...]] = ()

    steps: int = 1
    lr: float = 3e-3

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise StudyError(f"steps must be a whole number of at least 1, but got {self.steps!r}")

    def init(self, supernet: Supernet, weight_optimiser: torch.optim.Optimizer, loss: Loss) -> SearchState:
        inner_step(weight_optimiser, trainable_weights(supernet))  # refuse an unknown optimiser before the first step
        return initial_state(supernet, weight_optimiser, loss, alpha_optimiser=partial(darts_adam, lr=self.lr))

    def alpha_gradient(self, state: SearchState, train: Batch, val: Batch) -> Hypergradient:
        return alpha_gradient(state, train, val, partial(unrolled, steps=self.steps), looks_ahead=True)

    def step(self, state: SearchState, train: Batch, val: Batch) -> StepReport:
        return alternating_step(state, train, self.alpha_gradient(state, train, val))


STRATEGIES.register("unrolled", Unrolled)
