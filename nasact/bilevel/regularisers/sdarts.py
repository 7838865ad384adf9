"""`sdarts`: trains the weights at perturbed mixture weights. Knows only mixture weights and their gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from nasact.bilevel.regularisers.base import REGULARISERS, LossName, MixtureGradient, SearchSetting
from nasact.errors import StudyError
from nasact.mixture import NORMALISERS
from nasact.options import require_choice, require_positive


@dataclass(frozen=True, kw_only=True)
class SDARTS:
    """Smooth DARTS (Chen and Hsieh 2020, arXiv:2002.05283, eqs. 4 and 5): the weight step uses perturbed p.

    `random` adds U(-eps, eps) to each mixture weight. `pgd` starts there and increases the training loss by `steps`
    signed steps of 2 eps / steps, clamped to within eps of p. Both are then clipped to [0, 1] and divided by their sum
    (a row without a positive entry becomes one-hot at its largest entry): the distance to p may then be slightly more
    than eps. eps rises linearly from `start` to `end` over the search. The step of alpha, its look-ahead included, uses
    the unperturbed p. `pgd` costs `steps` additional passes per weight step.
    """

    name: ClassVar[str] = "sdarts"
    source: ClassVar[str] = "Chen and Hsieh 2020, arXiv:2002.05283"
    formula: ClassVar[str] = "weight step at p + d, |d_k| <= eps(t): d random, or the worst for the training loss"
    target_loss: ClassVar[LossName] = "training"

    attack: Literal["random", "pgd"] = "random"
    start: float = 0.03
    end: float = 0.3
    steps: int = 7

    def __post_init__(self) -> None:
        require_choice("attack", self.attack, ("random", "pgd"))
        require_positive("start", self.start)
        require_positive("end", self.end)
        for option, value in (("start", self.start), ("end", self.end)):
            if value > 1:
                raise StudyError(f"{option} must be at most 1, the largest mixture weight, but got {value}")
        if isinstance(self.steps, bool) or self.steps < 1:
            raise StudyError(f"steps must be a whole number of at least 1, but got {self.steps!r}")

    def refusal(self, setting: SearchSetting) -> str | None:
        if not setting.normaliser.on_simplex:
            supported = [normaliser.name for normaliser in NORMALISERS.values() if normaliser.on_simplex]
            return (
                "it moves mixture weights by eps and back onto the simplex, but the weights of normaliser "
                f"{setting.normaliser.name!r} are not on the simplex, or are drawn at each pass; "
                f"use {' or '.join(supported)}"
            )
        if not setting.weight_steps:
            return "it perturbs steps of only the weights, but the strategy updates weights and alpha in one step"
        return None

    def radius(self, progress: float) -> float:
        """Return eps at this progress."""
        return self.start + (self.end - self.start) * progress

    def perturb(self, p: Mapping[str, Tensor], gradient: MixtureGradient, progress: float) -> dict[str, Tensor]:
        eps = self.radius(progress)
        perturbed = {site: on_simplex(part + _uniform(part, eps)) for site, part in p.items()}
        for _ in range(self.steps if self.attack == "pgd" else 0):
            slopes = gradient(perturbed)
            ascended = {site: part + 2 * eps / self.steps * slopes[site].sign() for site, part in perturbed.items()}
            perturbed = {site: on_simplex(p[site] + (ascended[site] - p[site]).clamp(-eps, eps)) for site in p}
        return perturbed


def on_simplex(p: Tensor) -> Tensor:
    """Return p (..., K) clipped to [0, 1] and divided by its row sums; a row of sum 0: one-hot at its largest entry."""
    clipped = p.clamp(0, 1)
    total = clipped.sum(-1, keepdim=True)
    largest = torch.zeros_like(p).scatter_(-1, p.argmax(-1, keepdim=True), 1.0)
    return torch.where(total > 0, clipped / torch.where(total > 0, total, 1.0), largest)


def _uniform(like: Tensor, eps: float) -> Tensor:
    return torch.empty_like(like, memory_format=torch.contiguous_format).uniform_(-eps, eps)


REGULARISERS.register("sdarts", SDARTS)
