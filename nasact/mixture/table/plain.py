"""The table op in plain torch, for where there is no native code: any device, slower. Also what the native code is
tested against.

Every function takes x, g, a as (outer, rows, inner), weights as (rows, K), and leaves what lies outside the cells at 0.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nasact.mixture.table.basis import Basis, Grid

_BLOCK = 1 << 16
"""Elements that are worked on at a time on a CPU, so that what lies between two steps stays in the cache."""


def outside(basis: Basis, x: Tensor) -> bool:
    """Whether an element of x lies outside the cells."""
    return not _all_inside(basis.grid, x.float() * (1 / basis.grid.step))


def forward(basis: Basis, x: Tensor, weights: Tensor) -> Tensor:
    """`sum_k p_k f_k(x)`."""
    y = torch.empty_like(x)
    mixed = _mixtures(basis, x, weights)
    for block, spots in _blocks(basis, x, weights):
        y[block] = spots.keep(mixed.look_up(spots, 0)).to(x.dtype)
    return y


def backward(basis: Basis, x: Tensor, weights: Tensor, g: Tensor, *, weights_too: bool) -> tuple[Tensor, Tensor | None]:
    """`(g L1(x, p), A0(x, g))`."""
    dx = torch.empty_like(x)
    mixed = _mixtures(basis, x, weights)
    for block, spots in _blocks(basis, x, weights):
        gradient = spots.keep(g[block].float())
        dx[block] = (gradient * mixed.look_up(spots, 1)).to(x.dtype)
        if weights_too:
            mixed.add(spots, 0, gradient)
    return dx, mixed.met(0) if weights_too else None


def second(
    basis: Basis, x: Tensor, weights: Tensor, g: Tensor, a: Tensor, c: Tensor | None, *, weights_too: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`(a L1(x, p) + L0(x, c), g (a L2(x, p) + L1(x, c)), A1(x, a g))`."""
    dg, dx = torch.empty_like(x), torch.empty_like(x)
    mixed, cotangents = _mixtures(basis, x, weights), None if c is None else _mixtures(basis, x, c)
    for block, spots in _blocks(basis, x, weights):
        gradient, cotangent = spots.keep(g[block].float()), spots.keep(a[block].float())
        to_g, to_x = cotangent * mixed.look_up(spots, 1), cotangent * mixed.look_up(spots, 2)
        if cotangents is not None:
            to_g += spots.keep(cotangents.look_up(spots, 0))
            to_x += cotangents.look_up(spots, 1)
        dg[block], dx[block] = to_g.to(x.dtype), (gradient * to_x).to(x.dtype)
        if weights_too:
            mixed.add(spots, 1, gradient * cotangent)
    return dg, dx, mixed.met(1) if weights_too else None


class _Spots:
    """The cell (of its row's own table) and the place in it of every element of a block."""

    def __init__(self, grid: Grid, x: Tensor, *, tables: int) -> None:
        """`tables`: how many the rows have, one for all or one each."""
        u = x.float() * (1 / grid.step)
        self.inside: Tensor | None = None
        if not _all_inside(grid, u):
            self.inside = grid.inside(x.float())
            u.masked_fill_(~self.inside, 0.0)
        whole = u.trunc()
        self.t = u - whole
        self.cell = whole.add_(u.sign_()).add_(grid.below).long()
        if tables > 1:
            self.cell += torch.arange(tables, device=x.device).view(1, -1, 1) * grid.cells

    def keep(self, values: Tensor) -> Tensor:
        """`values` with 0 for what lies outside."""
        return values if self.inside is None else torch.where(self.inside, values, 0.0)

    def cubic(self, table: Tensor) -> Tensor:
        """The cubics of `table` (4, cells) at the spots."""
        cell = self.cell.view(-1)
        c0, c1, c2, c3 = (power.index_select(0, cell).view(self.t.shape) for power in table)
        return torch.addcmul(c0, self.t, torch.addcmul(c1, self.t, torch.addcmul(c2, self.t, c3)))


class _Blended:
    """A table a row, mixed of the K. Its adjoint sums g (1, t, t^2, t^3) into the cells, which then meet the K."""

    def __init__(self, basis: Basis, weights: Tensor) -> None:
        self.basis = basis
        self.weights = weights.double()  # no autocast and no reduced matmul precision touches a double
        self.tables: dict[int, Tensor] = {}
        self.moments = weights.new_zeros(4, weights.shape[0] * basis.grid.cells, dtype=torch.float64)

    def _columns(self, order: int) -> Tensor:
        """(K, 4 * cells), float64."""
        table = self.basis.coefficients[order].to(self.weights.device, torch.float64)
        return table.transpose(1, 2).reshape(len(table), -1)

    def look_up(self, spots: _Spots, order: int) -> Tensor:
        if order not in self.tables:
            mixed = (self.weights @ self._columns(order)).float()
            self.tables[order] = mixed.view(len(mixed), 4, -1).transpose(0, 1).reshape(4, -1)
        return spots.cubic(self.tables[order])

    def add(self, spots: _Spots, order: int, gradient: Tensor) -> None:
        cell, t, power = spots.cell.view(-1), spots.t.reshape(-1).double(), gradient.reshape(-1).double()
        for column in range(4):
            self.moments[column].scatter_add_(0, cell, power)
            if column < 3:
                power = power * t

    def met(self, order: int) -> Tensor:
        moments = self.moments.view(4, len(self.weights), -1).transpose(0, 1).reshape(len(self.weights), -1)
        return (moments @ self._columns(order).T).float()


class _Direct:
    """K cubics an element, for weights that so few elements share that a table a row would be larger than x."""

    def __init__(self, basis: Basis, weights: Tensor) -> None:
        self.basis = basis
        self.weights = weights.float()
        self.sums = torch.zeros_like(weights, dtype=torch.float64)

    def _cubics(self, spots: _Spots, order: int) -> Iterator[tuple[int, Tensor]]:
        for k, table in enumerate(self.basis.coefficients[order].to(self.weights.device)):
            yield k, spots.cubic(table.T.contiguous())

    def look_up(self, spots: _Spots, order: int) -> Tensor:
        total = torch.zeros_like(spots.t)
        for k, cubic in self._cubics(spots, order):
            total.addcmul_(self.weights[:, k].view(1, -1, 1), cubic)
        return total

    def add(self, spots: _Spots, order: int, gradient: Tensor) -> None:
        for k, cubic in self._cubics(spots, order):
            self.sums[:, k] += (gradient * cubic).sum((0, 2), dtype=torch.float64)

    def met(self, order: int) -> Tensor:
        return self.sums.float()


def _mixtures(basis: Basis, x: Tensor, weights: Tensor) -> _Blended | _Direct:
    return (_Direct if _few(basis.grid, x) else _Blended)(basis, weights)


def _few(grid: Grid, x: Tensor) -> bool:
    """Whether a row has fewer elements than a table has cells."""
    return x.shape[0] * x.shape[2] < grid.cells


def _all_inside(grid: Grid, u: Tensor) -> bool:
    low, high = u.aminmax()  # NaN is in both if it is anywhere
    return bool((low > -grid.below) & (high < grid.above))


def _blocks(basis: Basis, x: Tensor, weights: Tensor) -> Iterator[tuple[tuple[slice, ...], _Spots]]:
    """Pieces of x along its outer or, where that is 1, its inner dimension; all of it where there is no such cache."""
    tables = 1 if _few(basis.grid, x) else weights.shape[0]
    dim = 0 if x.shape[0] > 1 else 2
    size = x.shape[dim]
    each = max(1, _BLOCK * size // max(1, x.numel())) if x.device.type == "cpu" else size
    for start in range(0, size, each):
        block = (slice(start, start + each),) if dim == 0 else (slice(None), slice(None), slice(start, start + each))
        yield block, _Spots(basis.grid, x[block], tables=tables)
