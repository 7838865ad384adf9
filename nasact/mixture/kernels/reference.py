"""`reference`: plain torch, one term after the other. The other kernels are tested against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nasact.mixture.kernels.base import KERNELS, Choice, Term, Terms
from nasact.mixture.layout import Layout


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Each candidate by its own formula, in the dtype of x.

    Differentiable any number of times, and works under every transform that torch offers. Costs K activations, and
    saves for the backward pass what each of them saves.
    """

    name: ClassVar[str] = "reference"
    summary: ClassVar[str] = "plain torch, one candidate after the other: the truth for tests, and what is exported"

    def prepare(self, names: Sequence[str], layout: Layout, where: str) -> ReferenceOp:
        return ReferenceOp(layout)


@dataclass(frozen=True)
class ReferenceOp:
    """The op of `reference` for one bank."""

    layout: Layout

    def choose(self, device: torch.device, dtype: torch.dtype) -> Choice:
        return Choice("reference", "as requested")

    def __call__(self, x: Tensor, weights: Tensor, terms: Terms) -> Tensor:
        return mix(x, weights, terms(), self.layout)


def mix(x: Tensor, weights: Tensor, terms: Sequence[Term], layout: Layout) -> Tensor:
    """Compute `sum_k p_k f_k(x)` in plain torch: x (N, ...), weights (*layout.shape, K), K terms -> like x."""
    total: Tensor | None = None
    for term, weight in zip(terms, weights.to(x.dtype).unbind(-1), strict=True):
        part = term(x) * layout.broadcast(weight, x)  # in this order: the result has the first factor's memory format
        total = part if total is None else total + part
    return torch.zeros_like(x) if total is None else total


KERNELS.register(Reference.name, Reference)
