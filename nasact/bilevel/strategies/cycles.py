"""`cycles`: the weights alone, then the mixture weights alone, then the weights alone again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from nasact.bilevel.hypergradients import Hypergradient, first_order
from nasact.bilevel.phases import SearchPhase
from nasact.bilevel.problem import Batch, Loss, gradients
from nasact.bilevel.strategies.alpha_schedule import rest
from nasact.bilevel.strategies.alternating import alpha_gradient
from nasact.bilevel.strategies.state import (
    SearchState,
    StepReport,
    forward,
    move_alpha,
    require_finite,
    start,
    train_mode,
)
from nasact.errors import StudyError
from nasact.options import require_choice, require_positive

if TYPE_CHECKING:
    from nasact.supernet import Supernet


@dataclass(frozen=True, kw_only=True)
class Cycles:
    """Three cycles of training (paper 000, section 2): `w` with alpha frozen, alpha with `w` frozen, `w` again.

    Alpha moves while `begin <= progress < end`, by default in the second third. It has an Adam of its own with torch's
    betas, at the paper's 1e-2; `w` has the study's optimiser (the paper's: Adam at 1e-3; its cycles last 10 epochs
    each). The paper's weights are those of normaliser `ratio`; all others are served too. `loss`: what alpha goes down.
    The paper holds no data back for it, so `train`; `val` is the first-order gradient on validation data instead.
    Running statistics follow the training batches in all three cycles.
    """

    source: ClassVar[str] = "paper 000, section 2"
    guarantee: ClassVar[str] = "the plain gradient, of one group at a time; alpha is chosen at weights that stand still"
    cost: ClassVar[str] = "as joint; with loss 'val' 1 forward pass more while alpha moves"
    normalisers: ClassVar[tuple[str, ...]] = ()

    lr: float = 1e-2
    begin: float = 1 / 3
    end: float = 2 / 3
    loss: Literal["train", "val"] = "train"

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)
        if not 0 <= self.begin < self.end <= 1:
            raise StudyError(f"0 <= begin < end <= 1 must hold, but got (begin={self.begin}, end={self.end})")
        require_choice("loss", self.loss, ("train", "val"))

    @property
    def alpha_moves_from(self) -> float:
        return self.begin

    @property
    def phases(self) -> tuple[SearchPhase, ...]:
        """The cycles; one that was given no length at all is not wanted."""
        cycles = (
            SearchPhase(what="the first cycle", option="begin", begin=0.0, end=self.begin),
            SearchPhase(what="the cycle of alpha", option="end", begin=self.begin, end=self.end),
            SearchPhase(what="the last cycle", option="end", begin=self.end, end=1.0),
        )
        return tuple(cycle for cycle in cycles if cycle.begin < cycle.end)

    def init(self, supernet: Supernet, weight_optimiser: torch.optim.Optimizer, loss: Loss) -> SearchState:
        return start(
            supernet,
            weight_optimiser,
            loss,
            alpha_lr=self.lr,
            alpha_optimiser=lambda alphas: torch.optim.Adam(alphas, lr=self.lr),
        )

    def alpha_gradient(self, state: SearchState, train: Batch, val: Batch) -> Hypergradient:
        """The gradient of `loss`; in the first and third cycle nothing follows it."""
        return alpha_gradient(state, train, self._batch(train, val), first_order, looks_ahead=False)

    def step(self, state: SearchState, train: Batch, val: Batch) -> StepReport:
        """One update of `w` or one of alpha, whoever's cycle it is."""
        if not self.begin <= state.progress < self.end:
            return rest(state, train)
        if self.loss == "train":
            return self._down_training_loss(state, train)
        found = self.alpha_gradient(state, train, val)
        with torch.no_grad():
            loss = forward(state, train)
        require_finite(found.val_loss, "validation", state)
        require_finite(loss, "training", state)
        move_alpha(state, found.alpha)
        state.step += 1
        return StepReport(train_loss=loss.item(), val_loss=found.val_loss.item())

    def _down_training_loss(self, state: SearchState, train: Batch) -> StepReport:
        train_mode(state.supernet)
        loss = forward(state, train)
        require_finite(loss, "training", state)
        move_alpha(state, gradients(loss, state.supernet.arch_parameters()))
        state.step += 1
        return StepReport(train_loss=loss.item(), val_loss=None)

    def _batch(self, train: Batch, val: Batch) -> Batch:
        return train if self.loss == "train" else val
