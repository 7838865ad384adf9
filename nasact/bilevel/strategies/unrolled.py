"""`unrolled`: as darts of order 2, through one or several weight steps, by plain autograd."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch

from nasact.bilevel.differentiable_optimiser import inner_step
from nasact.bilevel.hypergradients import Hypergradient, unrolled
from nasact.bilevel.problem import Batch, Loss, trainable_weights
from nasact.bilevel.strategies.alternating import alpha_gradient, alternate
from nasact.bilevel.strategies.state import SearchState, StepReport, start
from nasact.errors import StudyError
from nasact.options import require_positive

if TYPE_CHECKING:
    from nasact.supernet import Supernet


@dataclass(frozen=True, kw_only=True)
class Unrolled:
    """Alpha's gradient through `steps` virtual weight steps on the training batch, the whole graph kept.

    With one step it is the oracle that `darts` of order 2 is tested against; more steps see further and cost memory.
    """

    source: ClassVar[str] = "reverse-mode hyperparameter gradients, Franceschi et al. 2017, arXiv:1703.01785"
    guarantee: ClassVar[str] = "the exact gradient through `steps` of the optimiser's own next steps"
    cost: ClassVar[str] = "about 5 times joint, 3 more for each further step, and the memory of all steps at once"
    normalisers: ClassVar[tuple[str, ...]] = ()

    steps: int = 1
    lr: float = 3e-3

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise StudyError(f"steps must be a whole number of at least 1, but got {self.steps!r}")

    def init(self, supernet: Supernet, weight_optimiser: torch.optim.Optimizer, loss: Loss) -> SearchState:
        inner_step(weight_optimiser, trainable_weights(supernet))  # refuse an unknown optimiser now, not at step 1
        return start(supernet, weight_optimiser, loss, alpha_lr=self.lr)

    def alpha_gradient(self, state: SearchState, train: Batch, val: Batch) -> Hypergradient:
        return alpha_gradient(state, train, val, partial(unrolled, steps=self.steps), looks_ahead=True)

    def step(self, state: SearchState, train: Batch, val: Batch) -> StepReport:
        return alternate(state, train, self.alpha_gradient(state, train, val))
