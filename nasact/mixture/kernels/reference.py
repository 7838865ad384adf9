"""`reference`: plain torch, one term after the other. The truth for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nasact.mixture.kernels.base import Choice, Term, Terms
from nasact.mixture.layout import Layout


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Every candidate by its own formula, in the dtype of x: differentiable any number of times, and transformable by
    everything torch offers. Costs K activations and keeps what each of them keeps."""

    name: ClassVar[str] = "reference"
    summary: ClassVar[str] = "plain torch, one candidate after the other: the truth for tests, and what is exported"

    def prepare(self, names: Sequence[str], layout: Layout, where: str) -> ReferenceOp:
        return ReferenceOp(layout)


@dataclass(frozen=True)
class ReferenceOp:
    layout: Layout

    def choose(self, device: torch.device, dtype: torch.dtype) -> Choice:
        return Choice("reference", "as asked for")

    def __call__(self, x: Tensor, weights: Tensor, terms: Terms) -> Tensor:
        return mix(x, weights, terms(), self.layout)


def mix(x: Tensor, weights: Tensor, terms: Sequence[Term], layout: Layout) -> Tensor:
    """`sum_k p_k f_k(x)` by plain torch: x (N, ...), weights (*layout.shape, K), K terms -> like x."""
    total: Tensor | None = None
    for term, weight in zip(terms, weights.to(x.dtype).unbind(-1), strict=True):
        part = term(x) * layout.broadcast(weight, x)  # in this order: the first factor's memory format is the result's
        total = part if total is None else total + part
    return torch.zeros_like(x) if total is None else total
