"""Kernels of the mixture op: one interface, interchangeable implementations. `reference` is the truth for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nasact.mixture.layout import Layout
from nasact.registry import Registry

Kernel = Callable[[Tensor, Tensor, Sequence[Callable[[Tensor], Tensor]], Layout], Tensor]
"""(x (N, ...), weights (*layout.shape, K), the K functions with their betas bound, layout) -> like x."""

KERNELS: Registry[Kernel] = Registry("kernel", "nasact list kernels")


def reference(x: Tensor, weights: Tensor, functions: Sequence[Callable[[Tensor], Tensor]], layout: Layout) -> Tensor:
    """Plain torch, one term after the other. Differentiable any number of times, by everything torch offers."""
    weights = weights.to(x.dtype)
    total: Tensor | None = None
    for function, weight in zip(functions, weights.unbind(-1), strict=True):
        term = layout.broadcast(weight, x) * function(x)
        total = term if total is None else total + term
    return torch.zeros_like(x) if total is None else total


KERNELS.register("reference", reference)
