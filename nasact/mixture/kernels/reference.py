"""`reference`: plain torch, one term after the other. The other kernels are tested against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nasact.mixture.kernels.base import KERNELS, Choice, Term, Terms
from nasact.mixture.kernels.zero_weights import add_zero_terms, find_zero_weights
from nasact.mixture.layout import Layout
from nasact.mixture.torch_transforms import is_transformed


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Each candidate by its own formula, in the dtype of x.

    Differentiable any number of times, and works under every transform that torch offers. Costs K activations, and
    saves for the backward pass what each of them saves. A candidate whose weights are all exactly zero contributes
    nothing, also where it is infinite or NaN, except the gradient of these weights (not under a transform, and not
    where torch compiles the call: there the plain product is taken).
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
        computed = terms()
        if torch.compiler.is_compiling() or is_transformed(x, weights):
            return mix(x, weights, computed, self.layout)
        zero = [k for k in find_zero_weights(weights) if computed[k].pure]
        if not zero or len(zero) == len(computed):
            return mix(x, weights, computed, self.layout)
        by_term = weights.to(x.dtype).unbind(-1)
        used = [k for k in range(len(computed)) if k not in zero]
        total = _sum(x, [by_term[k] for k in used], [computed[k] for k in used], self.layout)
        if not torch.is_grad_enabled():
            return total
        return add_zero_terms(total, x, [by_term[k] for k in zero], [computed[k] for k in zero], self.layout)


def mix(x: Tensor, weights: Tensor, terms: Sequence[Term], layout: Layout) -> Tensor:
    """Compute `sum_k p_k f_k(x)` in plain torch: x (N, ...), weights (*layout.shape, K), K terms -> like x."""
    return _sum(x, weights.to(x.dtype).unbind(-1), terms, layout)


def _sum(x: Tensor, weights: Sequence[Tensor], terms: Sequence[Term], layout: Layout) -> Tensor:
    """Compute `mix` for weights that are given as one tensor per term."""
    total: Tensor | None = None
    dtype = x.dtype
    for term, weight in zip(terms, weights, strict=True):
        computed = term(x)
        if term.own:
            dtype = computed.dtype
        part = computed * layout.broadcast(weight, x)  # in this order: it has the first factor's memory format
        total = part if total is None else total + part
    if total is None:
        return torch.zeros_like(x)
    return total if total.dtype == dtype else total.to(dtype)


KERNELS.register(Reference.name, Reference)
