"""`joint`: `w` and alpha minimise the same training loss, in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch

from nasact.bilevel.hypergradients.base import Hypergradient
from nasact.bilevel.hypergradients.first_order import first_order
from nasact.bilevel.problem import Batch, Loss, gradients, trainable_weights
from nasact.bilevel.strategies.base import STRATEGIES, StepReport
from nasact.bilevel.strategies.state import SearchState, darts_adam, initial_state
from nasact.bilevel.strategies.steps import alpha_gradient
from nasact.bilevel.strategies.updates import forward, move_alpha, move_weights, require_finite, train_mode
from nasact.options import require_positive

if TYPE_CHECKING:
    from nasact.supernet import Supernet


@dataclass(frozen=True, kw_only=True)
class Joint:
    """Single-level search: both groups minimise the training loss; alpha has its own lr and no weight decay."""

    source: ClassVar[str] = "single-level relaxation; the baseline of arXiv:1806.09055, section 4.4"
    guarantee: ClassVar[str] = "the plain gradient of the training loss; uses no validation data"
    cost: ClassVar[str] = "1 forward and backward pass per step: the unit of the costs of the others"
    normalisers: ClassVar[tuple[str, ...]] = ()
    temperature: ClassVar[tuple[float, float, str]] = (1.0, 0.05, "exponential")
    weight_steps: ClassVar[bool] = False

    lr: float = 3e-3

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)

    def init(self, supernet: Supernet, weight_optimiser: torch.optim.Optimizer, loss: Loss) -> SearchState:
        return initial_state(supernet, weight_optimiser, loss, alpha_optimiser=partial(darts_adam, lr=self.lr))

    def alpha_gradient(self, state: SearchState, train: Batch, val: Batch) -> Hypergradient:
        """Return the gradient on the training batch; other strategies return that on `val`."""
        return alpha_gradient(state, train, train, first_order, looks_ahead=False)

    def step(self, state: SearchState, train: Batch, val: Batch) -> StepReport:
        train_mode(state.supernet)
        weights, alphas = trainable_weights(state.supernet), state.supernet.arch_parameters()
        loss = forward(state, train)
        require_finite(loss, "training", state)
        found = gradients(loss, (*weights, *alphas))
        move_alpha(state, found[len(weights) :])
        move_weights(state, found[: len(weights)])
        state.step += 1
        return StepReport(train_loss=loss.item(), val_loss=None)


STRATEGIES.register("joint", Joint)
