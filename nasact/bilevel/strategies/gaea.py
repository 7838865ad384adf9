"""`gaea`: alphas are the mixture weights themselves, updated on the simplex by exponentiated gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from nasact.bilevel.strategies.base import STRATEGIES
from nasact.bilevel.strategies.exponentiated_gradient import ExponentiatedGradient
from nasact.bilevel.strategies.first_order_alternating import FirstOrder
from nasact.errors import StudyError


@dataclass(frozen=True, kw_only=True)
class GAEA(FirstOrder):
    """Geometry-aware exponentiated gradient (Li et al. 2021, arXiv:2004.07802, Alg. 1): first-order DARTS on a simplex.

    With normaliser `convex`, alpha minimises the validation loss by p <- p exp(-lr g) / sum. The step is multiplicative
    and without memory. Unlike Adam's step, it is proportional to the gradient, which at channel and neuron level is
    smaller by the number of rows. A multiplicative step cannot change a zero: in a row that contains a zero (a start at
    one function) the part `slack` of the weight is first distributed equally to all K.
    """

    source: ClassVar[str] = "Li et al. 2021, arXiv:2004.07802"
    guarantee: ClassVar[str] = "weights stay on the simplex and above zero; on a linear loss exactly softmax(-lr t g)"
    normalisers: ClassVar[tuple[str, ...]] = ("convex",)
    normalisers_reason: ClassVar[str] = "its steps move the mixture weights themselves on a simplex"

    lr: float = 0.1
    slack: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.slack < 1:
            raise StudyError(f"slack must be between 0 and 1, but got {self.slack}")

    def build_alpha_optimiser(self, alphas: list[nn.Parameter]) -> torch.optim.Optimizer:
        return ExponentiatedGradient(alphas, lr=self.lr)

    @torch.no_grad()
    def prepare_alphas(self, alphas: list[nn.Parameter]) -> None:
        """Distribute `slack` in every row that contains a zero."""
        for p in alphas:
            has_zero = (p == 0).any(-1, keepdim=True)
            p.copy_(torch.where(has_zero, (1 - self.slack) * p + self.slack / p.shape[-1], p))


STRATEGIES.register("gaea", GAEA)
