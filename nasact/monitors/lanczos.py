"""The largest eigenvalue of a symmetric operator that is known by its products. Knows no network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_NOTHING_LEFT = 1e-12


def largest_eigenvalue(product: Callable[[Tensor], Tensor], start: Tensor, iterations: int) -> float:
    """The largest eigenvalue (not: the largest in magnitude) of H (n, n), symmetric, from `product(v)` = H v.

    Lanczos (Golub and Van Loan, Matrix Computations, section 10.1) with full reorthogonalisation, from `start` (n,):
    after `iterations` products the best that can be said on the Krylov space, so a bound from below that rises with
    `iterations`, and exact after n of them unless `start` is orthogonal to the eigenvector. Vectors are float64.
    """
    length = start.double().norm()
    if length == 0:
        return 0.0
    basis = [start.double() / length]
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(iterations, start.numel())):
        image = product(basis[-1]).double()
        diagonal.append(float(basis[-1] @ image))
        known = torch.stack(basis)
        for _ in range(2):  # once is not enough where much cancels
            image = image - known.mT @ (known @ image)
        left = float(image.norm())
        if not left > _NOTHING_LEFT * max(map(abs, (*diagonal, *beside))):  # also ends where a product is not finite
            break
        beside.append(left)
        basis.append(image / left)
    small = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    off = torch.tensor(beside[: len(diagonal) - 1], dtype=torch.float64)
    small = small + torch.diag(off, 1) + torch.diag(off, -1)
    return float(torch.linalg.eigvalsh(small)[-1]) if bool(torch.isfinite(small).all()) else float("nan")
