"""`drnas`: mixture weights drawn from a learnt Dirichlet distribution, which is pulled towards the flat one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nasact.bilevel.problem import Tensors
from nasact.bilevel.strategies.base import STRATEGIES
from nasact.bilevel.strategies.first_order_alternating import FirstOrder
from nasact.errors import StudyError
from nasact.mixture.dirichlet import concentration


@dataclass(frozen=True, kw_only=True)
class DrNAS(FirstOrder):
    """Dirichlet search (Chen et al. 2021, arXiv:2006.10355): first-order DARTS with p ~ Dirichlet(elu(a) + 1).

    Alpha minimises E[validation loss] + pull * KL(Dirichlet(elu(a) + 1) || Dirichlet(1)). The expectation is estimated
    by one draw per pass with its pathwise gradient; the KL has a closed form and is summed over the sites. At channel
    and neuron level it is the mean over the rows of a site, because each row has only its share of the loss. `pull` 0
    omits the KL.

    Differences from the published code: concentrations are clamped to [0.01, 1000], and weights are drawn in float64.
    There is no shrinking of the bank and no partial channels. The reported validation loss does not include the KL.
    """

    source: ClassVar[str] = "Chen et al. 2021, arXiv:2006.10355"
    guarantee: ClassVar[str] = "an unbiased gradient of the expected validation loss and of the KL; order 1 in w"
    normalisers: ClassVar[tuple[str, ...]] = ("dirichlet",)
    normalisers_reason: ClassVar[str] = "it learns the distribution of the mixture weights"

    pull: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.pull) and self.pull >= 0):
            raise StudyError(f"pull must be a number of at least 0, but got {self.pull}")

    def alpha_penalty(self, alphas: Tensors) -> Tensor | None:
        """Return pull * KL of one alpha (..., K) per site, a 0-d tensor in float64; None if `pull` is 0."""
        if not self.pull:
            return None
        divergences = [kl_to_flat(concentration(alpha).double()).mean() for alpha in alphas]
        return self.pull * torch.stack(divergences).sum()


def kl_to_flat(c: Tensor) -> Tensor:
    """Return KL(Dirichlet(c) || Dirichlet(1)) in nats, c (..., K) > 0 -> (...); it is zero only at c = 1.

    ln G(c0) - sum_k ln G(c_k) - ln G(K) + sum_k (c_k - 1) (psi(c_k) - psi(c0)), with c0 = sum_k c_k.
    """
    total = c.sum(-1)
    normalisers = torch.lgamma(total) - torch.lgamma(c).sum(-1) - math.lgamma(c.shape[-1])
    return normalisers + ((c - 1) * (torch.digamma(c) - torch.digamma(total).unsqueeze(-1))).sum(-1)


STRATEGIES.register("drnas", DrNAS)
