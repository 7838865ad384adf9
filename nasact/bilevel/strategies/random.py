"""`random`: the control. One function per site is drawn at the start; only the weights are trained."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch

from nasact.bilevel.hypergradients.base import Hypergradient
from nasact.bilevel.hypergradients.first_order import first_order
from nasact.bilevel.problem import Batch, Loss
from nasact.bilevel.strategies.base import STRATEGIES, StepReport
from nasact.bilevel.strategies.state import SearchState, darts_adam, initial_state
from nasact.bilevel.strategies.steps import alpha_gradient, weights_only_step

if TYPE_CHECKING:
    from nasact.mixture import Mixture
    from nasact.supernet import Supernet


@dataclass(frozen=True, kw_only=True)
class Random:
    """A uniformly random genotype: the baseline that a search must beat.

    At the start each row of each site gets one candidate with all of the weight, up to the normaliser's `vertex_slack`.
    It is drawn uniformly from torch's global generator. With `top_k` 1 this genotype is derived. The start of the
    supernet (`init`) has no effect.
    """

    source: ClassVar[str] = (
        "the control of Li and Talwalkar 2019, arXiv:1902.07638, and Yu et al. 2020, arXiv:1902.08142"
    )
    guarantee: ClassVar[str] = "every genotype is equally likely; the choice does not depend on data"
    cost: ClassVar[str] = "1 forward and backward pass per step, as joint"
    normalisers: ClassVar[tuple[str, ...]] = ()
    lr: ClassVar[float] = 0.0
    alpha_moves_from: ClassVar[float | None] = None

    def init(self, supernet: Supernet, weight_optimiser: torch.optim.Optimizer, loss: Loss) -> SearchState:
        state = initial_state(supernet, weight_optimiser, loss, alpha_optimiser=partial(darts_adam, lr=self.lr))
        for mixture in supernet.mixtures().values():
            _draw_vertices(mixture)
        return state

    def alpha_gradient(self, state: SearchState, train: Batch, val: Batch) -> Hypergradient:
        """Return the first-order gradient on validation data; no step uses it."""
        return alpha_gradient(state, train, val, first_order, looks_ahead=False)

    def step(self, state: SearchState, train: Batch, val: Batch) -> StepReport:
        return weights_only_step(state, train)


@torch.no_grad()
def _draw_vertices(mixture: Mixture) -> None:
    *rows, count = mixture.alpha.shape
    # on the CPU for every device, so that a seed gives the same genotype on all devices
    chosen = torch.randint(count, rows)
    normaliser, temperature = mixture.normaliser, mixture.temperature.double().cpu()
    vertices = torch.stack([normaliser.inverse(normaliser.vertex(count, k), temperature) for k in range(count)])
    mixture.alpha.copy_(vertices[chosen])


STRATEGIES.register("random", Random)
