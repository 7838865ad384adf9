"""`cycles`: trains only the weights, then only the mixture weights, then only the weights again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from nasact.bilevel.hypergradients.base import Hypergradient
from nasact.bilevel.hypergradients.first_order import first_order
from nasact.bilevel.phases import SearchPhase
from nasact.bilevel.problem import Batch, Loss, gradients
from nasact.bilevel.strategies.base import STRATEGIES, StepReport
from nasact.bilevel.strategies.state import SearchState, initial_state
from nasact.bilevel.strategies.steps import alpha_gradient, weights_only_step
from nasact.bilevel.strategies.updates import forward, move_alpha, require_finite, train_mode
from nasact.errors import StudyError
from nasact.options import require_choice, require_positive

if TYPE_CHECKING:
    from nasact.supernet import Supernet


@dataclass(frozen=True, kw_only=True)
class Cycles:
    """Three cycles of training (paper 000, section 2): `w` with alpha frozen, alpha with `w` frozen, `w` again.

    Alpha moves while `begin <= progress < end`, by default in the second third. Its optimiser is Adam with torch's
    betas and the paper's lr 1e-2; `w` has the study's optimiser (in the paper: Adam with lr 1e-3, cycles of 10 epochs).
    The paper's mixture weights are those of normaliser `ratio`; all others are supported too. `loss`: the loss that
    alpha minimises. `train` as in the paper, which has no validation data; `val`: the first-order gradient on
    validation data. Running statistics are updated by the training batches in all three cycles.
    """

    source: ClassVar[str] = "paper 000, section 2"
    guarantee: ClassVar[str] = "the plain gradient of one group at a time; alpha is trained with frozen weights"
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
        """The cycles, without those of length zero."""
        cycles = (
            SearchPhase(what="the first cycle", option="begin", begin=0.0, end=self.begin),
            SearchPhase(what="the cycle of alpha", option="end", begin=self.begin, end=self.end),
            SearchPhase(what="the last cycle", option="end", begin=self.end, end=1.0),
        )
        return tuple(cycle for cycle in cycles if cycle.begin < cycle.end)

    def init(self, supernet: Supernet, weight_optimiser: torch.optim.Optimizer, loss: Loss) -> SearchState:
        return initial_state(supernet, weight_optimiser, loss, alpha_optimiser=partial(torch.optim.Adam, lr=self.lr))

    def alpha_gradient(self, state: SearchState, train: Batch, val: Batch) -> Hypergradient:
        """Return the gradient of `loss`; no step uses it in the first and third cycle."""
        return alpha_gradient(state, train, self._alpha_batch(train, val), first_order, looks_ahead=False)

    def step(self, state: SearchState, train: Batch, val: Batch) -> StepReport:
        """Update `w` or alpha once, by the current cycle."""
        if not self.begin <= state.progress < self.end:
            return weights_only_step(state, train)
        if self.loss == "train":
            return self._training_loss_step(state, train)
        found = self.alpha_gradient(state, train, val)
        with torch.no_grad():
            loss = forward(state, train)
        require_finite(found.val_loss, "validation", state)
        require_finite(loss, "training", state)
        move_alpha(state, found.alpha)
        state.step += 1
        return StepReport(train_loss=loss.item(), val_loss=found.val_loss.item())

    def _training_loss_step(self, state: SearchState, train: Batch) -> StepReport:
        train_mode(state.supernet)
        loss = forward(state, train)
        require_finite(loss, "training", state)
        move_alpha(state, gradients(loss, state.supernet.arch_parameters()))
        state.step += 1
        return StepReport(train_loss=loss.item(), val_loss=None)

    def _alpha_batch(self, train: Batch, val: Batch) -> Batch:
        return train if self.loss == "train" else val


STRATEGIES.register("cycles", Cycles)
