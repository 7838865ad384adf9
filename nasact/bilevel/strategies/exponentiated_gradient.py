"""Exponentiated gradient: the optimiser of parameters whose rows are points of a simplex. Knows no supernet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import overload

import torch
from torch import Tensor, nn

from nasact.errors import StudyError
from nasact.options import require_positive


class ExponentiatedGradient(torch.optim.Optimizer):
    """p <- p exp(-lr g) / sum_j p_j exp(-lr g_j), along the last dimension (Kivinen and Warmuth 1997; Li et al. 2021,
    arXiv:2004.07802): mirror descent whose mirror is the entropy.

    Every row stays on the simplex. A weight that is zero stays zero; no other ever becomes it: it is held at the
    smallest normal number of its dtype (1e-38 in float32), from where it can come back. The step is a function of p and
    g only: it keeps no memory, and a number added to a whole row of g changes nothing.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float = 0.1) -> None:
        require_positive("lr", lr)
        super().__init__(params, {"lr": lr})
        for index, p in enumerate(p for group in self.param_groups for p in group["params"]):
            total = p.detach().sum(-1)
            if bool((p.detach() < 0).any()) or not torch.allclose(total, torch.ones_like(total), atol=1e-3):
                raise StudyError(f"parameter {index}: exponentiated gradient needs rows that are points of a simplex")

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
    """One step from p (..., K) on the simplex along the gradient g, like p; computed in the logarithm, in p's dtype."""
    held = p > 0
    # Counted from the smallest gradient that has a say, so that one factor of the row is 1: no step is too long.
    lowest = g.masked_fill(~held, torch.inf).amin(-1, keepdim=True)
    moved = torch.where(held, p.log() - lr * (g - lowest), -torch.inf).softmax(-1)
    return torch.where(held, moved.clamp_min(torch.finfo(p.dtype).tiny), 0)
