"""`fair`: independent gates with a penalty that pushes each gate towards 0 or 1."""

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


@dataclass(frozen=True, kw_only=True)
class Fair(FirstOrder):
    """FairDARTS (Chu et al. 2020, arXiv:1911.12126): each function has its own gate, so functions do not compete.

    First-order DARTS with normaliser `sigmoid`: alpha minimises the validation loss - scale * mean((sigmoid(a) -
    0.5)^2) (the paper's zero-one loss with its weight of 10); the mean is over all gates of all sites. The penalty is a
    function of sigmoid(a) at every temperature, so that annealing does not change it. At a gate of exactly one half (a
    uniform start) its gradient is zero: the loss decides first. Derivation keeps the largest gates, as for all
    strategies. The reported validation loss does not include the penalty.
    """

    source: ClassVar[str] = "Chu et al. 2020, arXiv:1911.12126"
    guarantee: ClassVar[str] = "the gradient of the validation loss and of a penalty of the gates; order 1 in w"
    normalisers: ClassVar[tuple[str, ...]] = ("sigmoid",)
    normalisers_reason: ClassVar[str] = "its functions have independent gates"

    scale: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.scale) and self.scale >= 0):
            raise StudyError(f"scale must be a number of at least 0, but got {self.scale}")

    def alpha_penalty(self, alphas: Tensors) -> Tensor | None:
        """Return the penalty of one alpha (..., K) per site, a 0-d tensor of at most 0; None if `scale` is 0."""
        if not self.scale:
            return None
        gates = torch.sigmoid(torch.cat([alpha.flatten() for alpha in alphas]))
        return -self.scale * (gates - 0.5).square().mean()


STRATEGIES.register("fair", Fair)
