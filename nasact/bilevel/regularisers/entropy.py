"""`entropy`: pulls mixture weights to a decision, late in the search. Knows only mixture weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from nasact.bilevel.phases import SearchPhase
from nasact.bilevel.regularisers.base import REGULARISERS, LossName, RegulariserContext, SearchSetting
from nasact.errors import StudyError
from nasact.options import require_choice, require_positive


@dataclass(frozen=True, kw_only=True)
class Entropy:
    """lambda(t) times the entropy of the mixture weights, in nats: the mean over the sites and over the rows of a site.

    lambda is 0 until progress `start` (0 <= start < 1) and then rises to `coefficient` at the end of the search:
    linearly, or as half a cosine (slow at both ends). A weight of exactly 0 gets gradient 0; the true slope is
    infinite.
    """

    name: ClassVar[str] = "entropy"
    source: ClassVar[str] = "entropy with a rising coefficient, as in Tian et al. 2020, arXiv:2007.03154"
    formula: ClassVar[str] = "lambda(t) mean_sites(- sum_k p_k log p_k), lambda 0 until start, then rising"
    target_loss: ClassVar[LossName] = "validation"

    coefficient: float = 0.1
    start: float = 0.5
    schedule: Literal["linear", "cosine"] = "linear"

    def __post_init__(self) -> None:
        require_positive("coefficient", self.coefficient)
        if not 0 <= self.start < 1:
            raise StudyError(f"start must be a part of the search, from 0 to below 1, but got {self.start}")
        require_choice("schedule", self.schedule, ("linear", "cosine"))

    @property
    def phases(self) -> tuple[SearchPhase, ...]:
        """The rise of lambda; at progress `start` itself lambda is still 0."""
        just_after_start = math.nextafter(self.start, 1.0)
        what = "the rise of its coefficient"
        return (SearchPhase(what=what, option="start", begin=self.start, acts_from=just_after_start),)

    def refusal(self, setting: SearchSetting) -> str | None:
        normaliser = setting.normaliser
        if normaliser.signed:
            return f"the weights of normaliser {normaliser.name!r} may be negative: they have no entropy"
        if normaliser.total != "sum":
            return f"the weights of normaliser {normaliser.name!r} do not sum to one: they have no entropy"
        return None

    def strength(self, progress: float) -> float:
        """Return lambda(t) at this progress."""
        part = max(0.0, (progress - self.start) / (1 - self.start))
        return self.coefficient * (part if self.schedule == "linear" else (1 - math.cos(math.pi * part)) / 2)

    def __call__(self, context: RegulariserContext) -> Tensor:
        return self.strength(context.progress) * torch.stack([entropy(p).mean() for p in context.p.values()]).mean()


def entropy(p: Tensor) -> Tensor:
    """Return the entropy of each row of p (..., K), in nats: (...)."""
    # not torch.special.entr: its slope at 0 is infinite, and a weight of 0 would become NaN
    positive = torch.where(p > 0, p, 1.0)
    return -(positive * positive.log()).sum(-1)


REGULARISERS.register("entropy", Entropy)
