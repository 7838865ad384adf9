"""`sdarts`: weights are trained for mixture weights near those of the search. Knows mixture weights and a slope."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from nasact.bilevel.regularisers.base import Gradient, Setting
from nasact.errors import StudyError
from nasact.options import require_choice, require_positive

SIMPLEX = ("softmax", "ratio", "convex", "clip")
"""Normalisers whose weights lie on the simplex and are the same in training and evaluation."""


@dataclass(frozen=True, kw_only=True)
class SDARTS:
    """Smooth DARTS (Chen and Hsieh 2020, arXiv:2002.05283, eqs. 4 and 5): the weight step sees perturbed p.

    `random` adds U(-eps, eps) to each mixture weight. `pgd` begins there and climbs the training loss by `steps` signed
    steps of 2 eps / steps, held within eps of p. Either is clipped to [0, 1] and divided by its sum (a row that has
    nothing left takes its largest entry), so that the distance to p may then be a little more than eps. eps rises
    linearly from `start` to `end` over the search. The step of alpha, look-ahead included, uses p as it is.
    `pgd` costs `steps` additional passes.
    """

    name: ClassVar[str] = "sdarts"
    source: ClassVar[str] = "Chen and Hsieh 2020, arXiv:2002.05283"
    formula: ClassVar[str] = "weight step at p + d, |d_k| <= eps(t): d random, or the worst for the training loss"
    on: ClassVar[Literal["validation", "training"]] = "training"

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

    def refusal(self, setting: Setting) -> str | None:
        if setting.normaliser.name not in SIMPLEX:
            return (
                "it moves mixture weights by eps and back onto the simplex, and those of normaliser "
                f"{setting.normaliser.name!r} are off it, or drawn anew at each pass; use {' or '.join(SIMPLEX)}"
            )
        if not setting.weight_steps:
            return "it perturbs the steps of the weights alone, and the strategy takes none: it moves both at once"
        return None

    def radius(self, progress: float) -> float:
        """eps at this part of the search."""
        return self.start + (self.end - self.start) * progress

    def perturb(self, p: Mapping[str, Tensor], gradient: Gradient, progress: float) -> dict[str, Tensor]:
        eps = self.radius(progress)
        moved = {site: on_simplex(part + _uniform(part, eps)) for site, part in p.items()}
        for _ in range(self.steps if self.attack == "pgd" else 0):
            slopes = gradient(moved)
            climbed = {site: part + 2 * eps / self.steps * slopes[site].sign() for site, part in moved.items()}
            moved = {site: on_simplex(p[site] + (climbed[site] - p[site]).clamp(-eps, eps)) for site in p}
        return moved


def on_simplex(p: Tensor) -> Tensor:
    """Rows of p (..., K) clipped to [0, 1] and divided by their sum; a row without one takes its largest entry."""
    clipped = p.clamp(0, 1)
    total = clipped.sum(-1, keepdim=True)
    largest = torch.zeros_like(p).scatter_(-1, p.argmax(-1, keepdim=True), 1.0)
    return torch.where(total > 0, clipped / torch.where(total > 0, total, 1.0), largest)


def _uniform(like: Tensor, eps: float) -> Tensor:
    return torch.empty_like(like, memory_format=torch.contiguous_format).uniform_(-eps, eps)
