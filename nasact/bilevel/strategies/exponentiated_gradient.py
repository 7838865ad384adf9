"""Exponentiated gradient: an optimiser of parameters with rows on the simplex. Must not know supernets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import overload

import torch
from torch import Tensor, nn

from nasact.errors import StudyError
from nasact.options import require_positive


class ExponentiatedGradient(torch.optim.Optimizer):
    """p <- p exp(-lr g) / sum_j p_j exp(-lr g_j), along the last dimension (Kivinen and Warmuth 1997; Li et al. 2021,
    arXiv:2004.07802): mirror descent with the entropy as its mirror map.

    Every row stays on the simplex. A weight of zero stays zero; no other weight becomes zero: its lower bound is the
    smallest normal number of its dtype (1e-38 in float32), from which it can grow again. The step is a function of only
    p and g: the optimiser has no memory, and adding a constant to a row of g changes nothing.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float = 0.1) -> None:
        require_positive("lr", lr)
        super().__init__(params, {"lr": lr})
        for index, p in enumerate(p for group in self.param_groups for p in group["params"]):
            total = p.detach().sum(-1)
            if bool((p.detach() < 0).any()) or not torch.allclose(total, torch.ones_like(total), atol=1e-3):
                raise StudyError(f"parameter {index}: exponentiated gradient needs rows on the simplex")

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    with torch.no_grad():
                        p.copy_(exponentiated(p, p.grad, group["lr"]))
        return loss


def exponentiated(p: Tensor, g: Tensor, lr: float) -> Tensor:
    """Return p (..., K) after one step with gradient g (..., K); computed with logarithms, in the dtype of p."""
    positive = p > 0
    # relative to the smallest gradient of a positive weight: one factor of the row is 1, so no step underflows to 0
    lowest = g.masked_fill(~positive, torch.inf).amin(-1, keepdim=True)
    moved = torch.where(positive, p.log() - lr * (g - lowest), -torch.inf).softmax(-1)
    return torch.where(positive, moved.clamp_min(torch.finfo(p.dtype).tiny), 0)
