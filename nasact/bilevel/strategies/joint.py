"""`joint`: w and alpha on the same training loss, in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from nasact.bilevel.hypergradients import Hypergradient, first_order
from nasact.bilevel.problem import Batch, Loss, gradients, trainable_weights
from nasact.bilevel.strategies.alternating import alpha_gradient
from nasact.bilevel.strategies.state import (
    SearchState,
    StepReport,
    forward,
    move_alpha,
    move_weights,
    require_finite,
    start,
    train_mode,
)
from nasact.options import require_positive

if TYPE_CHECKING:
    from nasact.supernet import Supernet


@dataclass(frozen=True, kw_only=True)
class Joint:
    """One level: both groups go down the training loss, alpha with a learning rate of its own and no weight decay."""

    source: ClassVar[str] = "single-level relaxation; the baseline of arXiv:1806.09055, section 4.4"
    guarantee: ClassVar[str] = "the plain gradient of the training loss; never looks at validation data"
    cost: ClassVar[str] = "1 forward and backward pass a step: the unit of the others' costs"
    normalisers: ClassVar[tuple[str, ...]] = ()
    temperature: ClassVar[tuple[float, float, str]] = (1.0, 0.05, "exponential")
    weight_steps: ClassVar[bool] = False

    lr: float = 3e-3

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)

    def init(self, supernet: Supernet, weight_optimiser: torch.optim.Optimizer, loss: Loss) -> SearchState:
        return start(supernet, weight_optimiser, loss, alpha_lr=self.lr)

    def alpha_gradient(self, state: SearchState, train: Batch, val: Batch) -> Hypergradient:
        """The gradient on the training batch, in the place where other strategies have that on `val`."""
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
