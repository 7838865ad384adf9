"""The table op in plain torch, for where there is no native code: any device, slower. Also what the native code is
tested against.

Every function takes x, g, a as (outer, rows, inner), weights as (rows, K), and leaves what lies outside the cells at 0.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nasact.mixture.table.basis import Basis

_BLOCK = 1 << 18


def forward(basis: Basis, x: Tensor, weights: Tensor) -> Tensor:
    """`sum_k p_k f_k(x)`."""
    y = torch.empty_like(x)
    blend = _blend(basis, 0, weights)
    for block, spots in _blocks(basis, x, weights.shape[0]):
        y[block] = (spots.look_up(blend) * spots.inside).to(x.dtype)
    return y


def backward(basis: Basis, x: Tensor, weights: Tensor, g: Tensor, *, weights_too: bool) -> tuple[Tensor, Tensor | None]:
    """`(g L1(x, p), A0(x, g))`."""
    dx = torch.empty_like(x)
    slope = _blend(basis, 1, weights)
    moments = _no_moments(basis, weights)
    for block, spots in _blocks(basis, x, weights.shape[0]):
        gradient = torch.where(spots.inside, g[block].float(), 0.0)
        dx[block] = (gradient * spots.look_up(slope)).to(x.dtype)
        if weights_too:
            spots.add_moments(moments, gradient)
    return dx, _meet(basis, 0, moments) if weights_too else None


def second(
    basis: Basis, x: Tensor, weights: Tensor, g: Tensor, a: Tensor, c: Tensor | None, *, weights_too: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`(a L1(x, p) + L0(x, c), g (a L2(x, p) + L1(x, c)), A1(x, a g))`."""
    dg, dx = torch.empty_like(x), torch.empty_like(x)
    slope, curve = _blend(basis, 1, weights), _blend(basis, 2, weights)
    value_c, slope_c = (None, None) if c is None else (_blend(basis, 0, c), _blend(basis, 1, c))
    moments = _no_moments(basis, weights)
    for block, spots in _blocks(basis, x, weights.shape[0]):
        gradient = torch.where(spots.inside, g[block].float(), 0.0)
        cotangent = torch.where(spots.inside, a[block].float(), 0.0)
        to_g, to_x = cotangent * spots.look_up(slope), cotangent * spots.look_up(curve)
        if value_c is not None and slope_c is not None:
            to_g, to_x = to_g + spots.look_up(value_c) * spots.inside, to_x + spots.look_up(slope_c)
        dg[block], dx[block] = to_g.to(x.dtype), (gradient * to_x).to(x.dtype)
        if weights_too:
            spots.add_moments(moments, gradient * cotangent)
    return dg, dx, _meet(basis, 1, moments) if weights_too else None


class _Spots:
    """The cell (of the row's own table) and the place in it of every element of a block."""

    def __init__(self, basis: Basis, x: Tensor, rows: int) -> None:
        grid = basis.grid
        u = x.float() * (1 / grid.step)
        self.inside = (u > -grid.below) & (u < grid.above)
        u = torch.where(self.inside, u, 0.0)
        whole = u.trunc()
        self.t = u - whole
        row = torch.arange(rows, device=x.device).view(1, -1, 1) * grid.cells
        self.cell = whole.long() + (grid.below + torch.sign(u).long()) + row

    def look_up(self, table: Tensor) -> Tensor:
        c0, c1, c2, c3 = (table[:, power].take(self.cell) for power in range(4))
        return c0 + self.t * (c1 + self.t * (c2 + self.t * c3))

    def add_moments(self, moments: Tensor, gradient: Tensor) -> None:
        cell = self.cell.reshape(-1)
        powers = [gradient]
        for _ in range(3):
            powers.append(powers[-1] * self.t)
        for column, power in enumerate(powers):
            moments[:, column].index_add_(0, cell, power.reshape(-1).to(moments.dtype))


def _blocks(basis: Basis, x: Tensor, rows: int) -> Iterator[tuple[tuple[slice, ...], _Spots]]:
    """Pieces of x along its outer or, where that is 1, its inner dimension."""
    dim = 0 if x.shape[0] > 1 else 2
    each = max(1, _BLOCK * x.shape[dim] // max(1, x.numel()))
    for start in range(0, x.shape[dim], each):
        block = (slice(start, start + each),) if dim == 0 else (slice(None), slice(None), slice(start, start + each))
        yield block, _Spots(basis, x[block], rows)


def _blend(basis: Basis, order: int, weights: Tensor) -> Tensor:
    """(rows * cells, 4): every row's own mixture of the K tables."""
    table = basis.coefficients[order].to(weights.device)
    return (weights.float() @ table.flatten(1)).view(-1, 4)


def _no_moments(basis: Basis, weights: Tensor) -> Tensor:
    return torch.zeros(weights.shape[0] * basis.grid.cells, 4, dtype=torch.float64, device=weights.device)


def _meet(basis: Basis, order: int, moments: Tensor) -> Tensor:
    table = basis.coefficients[order].to(moments.device, torch.float64)
    return (moments.view(-1, table[0].numel()) @ table.flatten(1).T).float()
