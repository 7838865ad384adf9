"""`random`: the control. One function a site is drawn at the start and kept; only the weights are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from nasact.bilevel.hypergradients import Hypergradient, first_order
from nasact.bilevel.problem import Batch, Loss
from nasact.bilevel.strategies.alpha_schedule import rest
from nasact.bilevel.strategies.alternating import alpha_gradient
from nasact.bilevel.strategies.state import SearchState, StepReport, start

if TYPE_CHECKING:
    from nasact.mixture import Mixture
    from nasact.supernet import Supernet


@dataclass(frozen=True, kw_only=True)
class Random:
    """A uniformly random genotype: what a search has to beat.

    At the start each row of each site is given to one candidate, all alike in probability, drawn from torch's global
    generator: with all of its weight, up to the normaliser's `vertex_slack`. It is the genotype that is derived with
    `top_k` 1. What the supernet was relaxed with (`init`) does not count.
    """

    source: ClassVar[str] = (
        "the control of Li and Talwalkar 2019, arXiv:1902.07638, and Yu et al. 2020, arXiv:1902.08142"
    )
    guarantee: ClassVar[str] = "every genotype is equally likely; the data have no part in the choice"
    cost: ClassVar[str] = "1 forward and backward pass a step, as joint"
    normalisers: ClassVar[tuple[str, ...]] = ()
    lr: ClassVar[float] = 0.0
    alpha_moves_from: ClassVar[float | None] = None

    def init(self, supernet: Supernet, weight_optimiser: torch.optim.Optimizer, loss: Loss) -> SearchState:
        state = start(supernet, weight_optimiser, loss, alpha_lr=self.lr)
        for mixture in supernet.mixtures().values():
            _draw(mixture)
        return state

    def alpha_gradient(self, state: SearchState, train: Batch, val: Batch) -> Hypergradient:
        """Of first order, on validation data: where alpha is pulled to. No step follows it."""
        return alpha_gradient(state, train, val, first_order, looks_ahead=False)

    def step(self, state: SearchState, train: Batch, val: Batch) -> StepReport:
        return rest(state, train)


@torch.no_grad()
def _draw(mixture: Mixture) -> None:
    *rows, count = mixture.alpha.shape
    # On the CPU whatever the device: the same seed is the same genotype everywhere.
    chosen = torch.randint(count, rows)
    normaliser, temperature = mixture.normaliser, mixture.temperature.double().cpu()
    vertices = torch.stack([normaliser.inverse(normaliser.vertex(count, k), temperature) for k in range(count)])
    mixture.alpha.copy_(vertices[chosen])
