"""`beta_decay`: bounds the logits of a softmax, so that they do not grow apart early. Knows only alphas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nasact.bilevel.regularisers.base import REGULARISERS, LossName, RegulariserContext, SearchSetting
from nasact.mixture import NORMALISERS
from nasact.options import require_positive


@dataclass(frozen=True, kw_only=True)
class BetaDecay:
    """Beta-DARTS (Ye et al. 2022, arXiv:2203.01665, eq. 12): lambda times the mean of logsumexp(alpha).

    lambda rises linearly from 0 to `coefficient` (the paper's 50) over the search. The mean is over the sites, and over
    the rows of a site. The temperature is not part of the formula: the paper has none.
    """

    name: ClassVar[str] = "beta_decay"
    source: ClassVar[str] = "Ye et al. 2022, arXiv:2203.01665"
    formula: ClassVar[str] = "coefficient t mean_sites(log sum_k exp a_k)"
    target_loss: ClassVar[LossName] = "validation"

    coefficient: float = 50.0

    def __post_init__(self) -> None:
        require_positive("coefficient", self.coefficient)

    def refusal(self, setting: SearchSetting) -> str | None:
        if setting.normaliser.logits:
            return None
        supported = [normaliser.name for normaliser in NORMALISERS.values() if normaliser.logits]
        return (
            "it bounds the logits of a softmax, but the alphas of normaliser "
            f"{setting.normaliser.name!r} are no logits; use {' or '.join(supported)}"
        )

    def __call__(self, context: RegulariserContext) -> Tensor:
        means = [torch.logsumexp(alpha, -1).mean() for alpha in context.alphas.values()]
        return self.coefficient * context.progress * torch.stack(means).mean()


REGULARISERS.register("beta_decay", BetaDecay)
