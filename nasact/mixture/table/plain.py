"""The table op in plain torch: slower than the native code, for any device. The native code is tested against it.

Every function takes x, g, a as (outer, rows, inner) and weights as (rows, K). The result is 0 for elements of x outside
the cells. L_n and A_n are defined in op.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nasact.mixture.table.basis import Basis, Grid

_BLOCK = 1 << 16
"""Elements that are computed at a time on a CPU, so that intermediate results stay in the cache."""


def outside(basis: Basis, x: Tensor) -> bool:
    """Whether an element of x lies outside the cells."""
    return not _all_inside(basis.grid, x.float() * (1 / basis.grid.step))


def forward(basis: Basis, x: Tensor, weights: Tensor) -> Tensor:
    """Return `L0(x, p) = sum_k p_k f_k(x)`."""
    y = torch.empty_like(x)
    mixed = _mixtures(basis, x, weights)
    for block, cells in _blocks(basis, x, weights):
        y[block] = cells.zero_outside(mixed.look_up(cells, 0)).to(x.dtype)
    return y


def backward(basis: Basis, x: Tensor, weights: Tensor, g: Tensor, *, with_dp: bool) -> tuple[Tensor, Tensor | None]:
    """Return `(g L1(x, p), A0(x, g))`."""
    dx = torch.empty_like(x)
    mixed = _mixtures(basis, x, weights)
    for block, cells in _blocks(basis, x, weights):
        gradient = cells.zero_outside(g[block].float())
        dx[block] = (gradient * mixed.look_up(cells, 1)).to(x.dtype)
        if with_dp:
            mixed.accumulate(cells, 0, gradient)
    return dx, mixed.adjoint(0) if with_dp else None


def double_backward(
    basis: Basis, x: Tensor, weights: Tensor, g: Tensor, a: Tensor, c: Tensor | None, *, with_dp: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return `(a L1(x, p) + L0(x, c), g (a L2(x, p) + L1(x, c)), A1(x, a g))`."""
    dg, dx = torch.empty_like(x), torch.empty_like(x)
    mixed, cotangents = _mixtures(basis, x, weights), None if c is None else _mixtures(basis, x, c)
    for block, cells in _blocks(basis, x, weights):
        gradient, cotangent = cells.zero_outside(g[block].float()), cells.zero_outside(a[block].float())
        to_g, to_x = cotangent * mixed.look_up(cells, 1), cotangent * mixed.look_up(cells, 2)
        if cotangents is not None:
            to_g += cells.zero_outside(cotangents.look_up(cells, 0))
            to_x += cotangents.look_up(cells, 1)
        dg[block], dx[block] = to_g.to(x.dtype), (gradient * to_x).to(x.dtype)
        if with_dp:
            mixed.accumulate(cells, 1, gradient * cotangent)
    return dg, dx, mixed.adjoint(1) if with_dp else None


class _Cells:
    """The cell of each element of a block, in the table of its row, and the element's position `t` in the cell."""

    def __init__(self, grid: Grid, x: Tensor, *, tables: int) -> None:
        """`tables`: number of tables, 1 for all rows together or one for each row."""
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

    def zero_outside(self, values: Tensor) -> Tensor:
        """`values`, with 0 for elements outside the cells."""
        return values if self.inside is None else torch.where(self.inside, values, 0.0)

    def cubic(self, table: Tensor) -> Tensor:
        """The cubics of `table` (4, cells) at the elements."""
        cell = self.cell.view(-1)
        c0, c1, c2, c3 = (power.index_select(0, cell).view(self.t.shape) for power in table)
        return torch.addcmul(c0, self.t, torch.addcmul(c1, self.t, torch.addcmul(c2, self.t, c3)))


class _Blended:
    """One table per row: the weighted sum of the K tables.

    The adjoint sums g (1, t, t^2, t^3) per cell and then multiplies these moments with the K tables.
    """

    def __init__(self, basis: Basis, weights: Tensor) -> None:
        self.basis = basis
        self.weights = weights.double()  # autocast and a reduced matmul precision do not apply to float64
        self.tables: dict[int, Tensor] = {}
        self.moments = weights.new_zeros(4, weights.shape[0] * basis.grid.cells, dtype=torch.float64)

    def _columns(self, order: int) -> Tensor:
        """The K tables as rows: (K, 4 * cells), float64."""
        table = self.basis.coefficients[order].to(self.weights.device, torch.float64)
        return table.transpose(1, 2).reshape(len(table), -1)

    def look_up(self, cells: _Cells, order: int) -> Tensor:
        """`L_order(x, p)` of the elements, float32."""
        if order not in self.tables:
            mixed = (self.weights @ self._columns(order)).float()
            self.tables[order] = mixed.view(len(mixed), 4, -1).transpose(0, 1).reshape(4, -1)
        return cells.cubic(self.tables[order])

    def accumulate(self, cells: _Cells, order: int, gradient: Tensor) -> None:
        """Add the elements of a block to `A_order(x, gradient)`."""
        cell, t, power = cells.cell.view(-1), cells.t.reshape(-1).double(), gradient.reshape(-1).double()
        for column in range(4):
            self.moments[column].scatter_add_(0, cell, power)
            if column < 3:
                power = power * t

    def adjoint(self, order: int) -> Tensor:
        """`A_order` of all elements that were accumulated: (rows, K), float32."""
        moments = self.moments.view(4, len(self.weights), -1).transpose(0, 1).reshape(len(self.weights), -1)
        return (moments @ self._columns(order).T).float()


class _Direct:
    """K cubics per element, for weights that few elements share: one table per row would be larger than x."""

    def __init__(self, basis: Basis, weights: Tensor) -> None:
        self.basis = basis
        self.weights = weights.float()
        self.sums = torch.zeros_like(weights, dtype=torch.float64)

    def _cubics(self, cells: _Cells, order: int) -> Iterator[tuple[int, Tensor]]:
        for k, table in enumerate(self.basis.coefficients[order].to(self.weights.device)):
            yield k, cells.cubic(table.T.contiguous())

    def look_up(self, cells: _Cells, order: int) -> Tensor:
        """`L_order(x, p)` of the elements, float32."""
        total = torch.zeros_like(cells.t)
        for k, cubic in self._cubics(cells, order):
            total.addcmul_(self.weights[:, k].view(1, -1, 1), cubic)
        return total

    def accumulate(self, cells: _Cells, order: int, gradient: Tensor) -> None:
        """Add the elements of a block to `A_order(x, gradient)`."""
        for k, cubic in self._cubics(cells, order):
            self.sums[:, k] += (gradient * cubic).sum((0, 2), dtype=torch.float64)

    def adjoint(self, order: int) -> Tensor:
        """`A_order` of all elements that were accumulated: (rows, K), float32."""
        return self.sums.float()


def _mixtures(basis: Basis, x: Tensor, weights: Tensor) -> _Blended | _Direct:
    return (_Direct if _few_per_row(basis.grid, x) else _Blended)(basis, weights)


def _few_per_row(grid: Grid, x: Tensor) -> bool:
    """Whether a row has fewer elements than a table has cells."""
    return x.shape[0] * x.shape[2] < grid.cells


def _all_inside(grid: Grid, u: Tensor) -> bool:
    low, high = u.aminmax()  # both are NaN if any element is NaN
    return bool((low > -grid.below) & (high < grid.above))


def _blocks(basis: Basis, x: Tensor, weights: Tensor) -> Iterator[tuple[tuple[slice, ...], _Cells]]:
    """Blocks of x along its outer dimension or, where that is 1, along its inner one; one block on other devices."""
    tables = 1 if _few_per_row(basis.grid, x) else weights.shape[0]
    dim = 0 if x.shape[0] > 1 else 2
    size = x.shape[dim]
    step = max(1, _BLOCK * size // max(1, x.numel())) if x.device.type == "cpu" else size
    for start in range(0, size, step):
        block = (slice(start, start + step),) if dim == 0 else (slice(None), slice(None), slice(start, start + step))
        yield block, _Cells(basis.grid, x[block], tables=tables)
