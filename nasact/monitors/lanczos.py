"""The largest eigenvalue of a symmetric operator, computed from matrix-vector products. Knows no network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_BREAKDOWN = 1e-12
"""Relative norm of the residual below which the Krylov space is invariant, and the iteration ends."""


def largest_eigenvalue(product: Callable[[Tensor], Tensor], start: Tensor, iterations: int) -> float:
    """The largest eigenvalue (with its sign, not in magnitude) of a symmetric H (n, n), from `product(v)` = H v.

    Lanczos (Golub and Van Loan, Matrix Computations, section 10.1) with full reorthogonalisation, from `start` (n,).
    The result after `iterations` products is the largest eigenvalue on the Krylov space: a lower bound that rises with
    `iterations`, and exact after n products unless `start` is orthogonal to the eigenvector. Vectors are float64.
    """
    length = start.double().norm()
    if length == 0:
        return 0.0
    basis = [start.double() / length]
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    for _ in range(min(iterations, start.numel())):
        image = product(basis[-1]).double()
        diagonal.append(float(basis[-1] @ image))
        Q = torch.stack(basis)
        for _ in range(2):  # a single orthogonalisation is inexact where much cancels
            image = image - Q.mT @ (Q @ image)
        norm = float(image.norm())
        scale = max(map(abs, (*diagonal, *off_diagonal)))
        if not norm > _BREAKDOWN * scale:  # true also for a product that is not finite
            break
        off_diagonal.append(norm)
        basis.append(image / norm)
    T = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    off = torch.tensor(off_diagonal[: len(diagonal) - 1], dtype=torch.float64)
    T = T + torch.diag(off, 1) + torch.diag(off, -1)
    return float(torch.linalg.eigvalsh(T)[-1]) if bool(torch.isfinite(T).all()) else float("nan")
