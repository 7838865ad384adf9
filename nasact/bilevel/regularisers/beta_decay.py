"""`beta_decay`: keeps the logits of a softmax from growing apart early. Knows alphas only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from nasact.bilevel.regularisers.base import RegulariserContext, Setting
from nasact.options import require_positive

LOGITS = ("softmax", "gumbel", "gumbel_hard")
"""Normalisers whose alphas are logits of a softmax."""


@dataclass(frozen=True, kw_only=True)
class BetaDecay:
    """Beta-DARTS (Ye et al. 2022, arXiv:2203.01665, eq. 12): lambda times the mean of logsumexp(alpha).

    lambda rises linearly from 0 to `coefficient` (the paper's 50) over the search. The mean is over the sites, and over
    a site's rows; the temperature is left out, as in the paper, which has none.
    """

    name: ClassVar[str] = "beta_decay"
    source: ClassVar[str] = "Ye et al. 2022, arXiv:2203.01665"
    formula: ClassVar[str] = "coefficient t mean_sites(log sum_k exp a_k)"
    on: ClassVar[Literal["validation", "training"]] = "validation"

    coefficient: float = 50.0

    def __post_init__(self) -> None:
        require_positive("coefficient", self.coefficient)

    def refusal(self, setting: Setting) -> str | None:
        if setting.normaliser.name in LOGITS:
            return None
        return (
            f"it bounds the logits of a softmax, and the alphas of normaliser {setting.normaliser.name!r} are none; "
            f"use {' or '.join(LOGITS)}"
        )

    def __call__(self, context: RegulariserContext) -> Tensor:
        means = [torch.logsumexp(alpha, -1).mean() for alpha in context.alphas.values()]
        return self.coefficient * context.progress * torch.stack(means).mean()
