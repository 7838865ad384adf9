"""`spectral`: penalises the largest singular value of every kernel, by power iteration. Knows only kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nasact.bilevel.regularisers.base import REGULARISERS, LossName, RegulariserContext, SearchSetting
from nasact.errors import StudyError
from nasact.options import require_positive

_GOLDEN_RATIO = 0.6180339887498949


@dataclass(frozen=True, kw_only=True)
class Spectral:
    """Half of `coefficient` times the sum of squared spectral norms (Yoshida and Miyato 2017, arXiv:1705.10941, eq. 3).

    A convolution's kernel (out, in, h, w) counts as the matrix (out, in h w). The singular vector v comes from
    `iterations` steps of power iteration, always from the same start, so that a checkpoint need not hold v. v is
    detached: the gradient lambda sigma u v^T is still exact when the iteration has converged. The value |W v|^2 is a
    lower bound. The second derivative treats v as constant.
    """

    name: ClassVar[str] = "spectral"
    source: ClassVar[str] = "Yoshida and Miyato 2017, arXiv:1705.10941; paper 002, section 3.2"
    formula: ClassVar[str] = "coefficient / 2 sum_l sigma(W_l)^2"
    target_loss: ClassVar[LossName] = "training"

    coefficient: float = 0.01
    iterations: int = 10

    def __post_init__(self) -> None:
        require_positive("coefficient", self.coefficient)
        if isinstance(self.iterations, bool) or self.iterations < 1:
            raise StudyError(f"iterations must be a whole number of at least 1, but got {self.iterations!r}")

    def refusal(self, setting: SearchSetting) -> str | None:
        return None

    def __call__(self, context: RegulariserContext) -> Tensor:
        if not context.kernels:
            return torch.zeros(())
        squares = [squared_norm(kernel.flatten(1), self.iterations) for kernel in context.kernels.values()]
        return self.coefficient / 2 * torch.stack(squares).sum()


def squared_norm(matrix: Tensor, iterations: int) -> Tensor:
    """Return sigma(W)^2 of W (m, n) as |W v|^2; v is the detached right singular vector after `iterations` steps."""
    return (matrix @ right_vector(matrix, iterations)).square().sum()


@torch.no_grad()
def right_vector(matrix: Tensor, iterations: int) -> Tensor:
    """Return the leading right singular vector (n,), of norm one (zeros for a matrix of zeros)."""
    # a start without a pattern: a vector of ones is orthogonal to the leading vector of a filter that sums to zero
    steps = torch.arange(1, matrix.shape[1] + 1, device=matrix.device, dtype=torch.float64)
    v = ((steps * _GOLDEN_RATIO) % 1 - 0.5).to(matrix.dtype)
    tiny = torch.finfo(matrix.dtype).tiny
    for _ in range(iterations):
        u = matrix @ v
        v = matrix.mT @ (u / u.norm().clamp_min(tiny))
        v = v / v.norm().clamp_min(tiny)
    return v


REGULARISERS.register("spectral", Spectral)
