"""`spectral`: the largest singular value of every kernel, by power iteration. Knows kernels only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from nasact.bilevel.regularisers.base import RegulariserContext, Setting
from nasact.errors import StudyError
from nasact.options import require_positive

_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, kw_only=True)
class Spectral:
    """Half of `coefficient` times the sum of squared spectral norms (Yoshida and Miyato 2017, arXiv:1705.10941, eq. 3).

    A convolution's kernel (out, in, h, w) counts as the matrix (out, in h w). The singular vector v comes from
    `iterations` steps of power iteration, always from the same start, so that a search needs no memory of it; it is
    detached, which leaves the gradient lambda sigma u v^T exact where the iteration has converged. The value |W v|^2
    is from below. The second derivative is that at a fixed v.
    """

    name: ClassVar[str] = "spectral"
    source: ClassVar[str] = "Yoshida and Miyato 2017, arXiv:1705.10941; paper 002, section 3.2"
    formula: ClassVar[str] = "coefficient / 2 sum_l sigma(W_l)^2"
    on: ClassVar[Literal["validation", "training"]] = "training"

    coefficient: float = 0.01
    iterations: int = 10

    def __post_init__(self) -> None:
        require_positive("coefficient", self.coefficient)
        if isinstance(self.iterations, bool) or self.iterations < 1:
            raise StudyError(f"iterations must be a whole number of at least 1, but got {self.iterations!r}")

    def refusal(self, setting: Setting) -> str | None:
        return None

    def __call__(self, context: RegulariserContext) -> Tensor:
        if not context.kernels:
            return torch.zeros(())
        squares = [squared_norm(kernel.flatten(1), self.iterations) for kernel in context.kernels.values()]
        return self.coefficient / 2 * torch.stack(squares).sum()


def squared_norm(matrix: Tensor, iterations: int) -> Tensor:
    """sigma(W)^2 of W (m, n), as |W v|^2 with v the detached right singular vector after `iterations` steps."""
    return (matrix @ right_vector(matrix, iterations)).square().sum()


@torch.no_grad()
def right_vector(matrix: Tensor, iterations: int) -> Tensor:
    """The leading right singular vector (n,), of length one (0 for a matrix of zeros)."""
    # a start without a pattern: ones are orthogonal to the leading vector of every filter that sums to zero
    steps = torch.arange(1, matrix.shape[1] + 1, device=matrix.device, dtype=torch.float64)
    v = ((steps * _GOLDEN) % 1 - 0.5).to(matrix.dtype)
    tiny = torch.finfo(matrix.dtype).tiny
    for _ in range(iterations):
        u = matrix @ v
        v = matrix.mT @ (u / u.norm().clamp_min(tiny))
        v = v / v.norm().clamp_min(tiny)
    return v
