"""`drnas`: mixture weights drawn from a learnt Dirichlet distribution, pulled towards the flat one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from nasact.bilevel.hypergradients import Hypergradient, first_order
from nasact.bilevel.problem import Batch, Loss, Tensors
from nasact.bilevel.strategies.alpha_penalty import with_penalty
from nasact.bilevel.strategies.alternating import alpha_gradient, alternate
from nasact.bilevel.strategies.state import SearchState, StepReport, require_normaliser, start
from nasact.errors import StudyError
from nasact.mixture.dirichlet import concentration
from nasact.options import require_positive

if TYPE_CHECKING:
    from nasact.supernet import Supernet


@dataclass(frozen=True, kw_only=True)
class DrNAS:
    """Dirichlet search (Chen et al. 2021, arXiv:2006.10355): p ~ Dirichlet(elu(a) + 1), first order, alternating.

    Alpha goes down E[validation loss] + pull * KL(Dirichlet(elu(a) + 1) || Dirichlet(1)), the expectation by one draw a
    pass and its pathwise gradient, the KL by its closed form: summed over the sites; at channel and neuron level a mean
    over the site's rows, each of which has only its share of the loss. `pull` 0 leaves it out.

    How this differs from the published code: concentrations are kept within [0.01, 1000], and drawn from in float64.
    Shrinking the bank and partial channels are no part of it. The reported validation loss is without the pull.
    """

    source: ClassVar[str] = "Chen et al. 2021, arXiv:2006.10355"
    guarantee: ClassVar[str] = "an unbiased gradient of the expected validation loss and of the KL; order 1 in w"
    cost: ClassVar[str] = "about 2 times joint"
    normalisers: ClassVar[tuple[str, ...]] = ("dirichlet",)
    normalisers_reason: ClassVar[str] = "it learns the distribution that the weights come from"

    lr: float = 3e-3
    pull: float = 1e-3

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)
        if not (math.isfinite(self.pull) and self.pull >= 0):
            raise StudyError(f"pull must be a number of at least 0, but got {self.pull}")

    def init(self, supernet: Supernet, weight_optimiser: torch.optim.Optimizer, loss: Loss) -> SearchState:
        require_normaliser("drnas", self, supernet)
        return start(supernet, weight_optimiser, loss, alpha_lr=self.lr)

    def alpha_gradient(self, state: SearchState, train: Batch, val: Batch) -> Hypergradient:
        found = alpha_gradient(state, train, val, first_order, looks_ahead=False)
        return with_penalty(found, state.supernet.arch_parameters(), self.penalty) if self.pull else found

    def penalty(self, alphas: Tensors) -> Tensor:
        """The pull of one alpha (..., K) a site, a 0-d tensor in float64."""
        rows = [kl_to_flat(concentration(alpha).double()).mean() for alpha in alphas]
        return self.pull * torch.stack(rows).sum()

    def step(self, state: SearchState, train: Batch, val: Batch) -> StepReport:
        return alternate(state, train, self.alpha_gradient(state, train, val))


def kl_to_flat(c: Tensor) -> Tensor:
    """KL(Dirichlet(c) || Dirichlet(1)) in nats, c (..., K) > 0 -> (...): zero at c = 1 only.

    ln G(c0) - sum_k ln G(c_k) - ln G(K) + sum_k (c_k - 1) (psi(c_k) - psi(c0)), with c0 = sum_k c_k.
    """
    total = c.sum(-1)
    normalisers = torch.lgamma(total) - torch.lgamma(c).sum(-1) - math.lgamma(c.shape[-1])
    return normalisers + ((c - 1) * (torch.digamma(c) - torch.digamma(total).unsqueeze(-1))).sum(-1)
