"""The cells of a bank: K functions and their derivatives as piecewise cubics, with measured errors.

Knows the catalogue and numbers; must not know the op, its derivatives, other devices than the CPU or native code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from nasact import activations
from nasact.activations import Candidate
from nasact.errors import MixtureError

T = TypeVar("T")

ORDERS = 3
"""Number of tabulated orders: values, slopes and curvatures, as a gradient of a gradient needs."""

ORDER_NAMES = ("value", "slope", "curvature")
SLACK = (1.0, 10.0, 100.0)
"""Tolerances of the three orders, in units of the table's tolerance: a derivative varies faster than its function."""
MOST_KNOTS = 1 << 16
NOT_ELEMENTWISE = "it is not elementwise"

_NODES = torch.tensor([0.0, 1 / 3, 2 / 3, 1.0], dtype=torch.float64, device="cpu")
_TO_CUBIC = torch.linalg.inv(torch.stack([_NODES**power for power in range(4)], dim=1))
_MARGIN = 1e-7
"""A derivative at the end of a cell is sampled this far inside it, in units of the cell: kinks lie on knots."""
_PROBES = torch.tensor([1e-4, 0.07, 0.19, 0.41, 0.5, 0.62, 0.81, 0.93, 1 - 1e-4], dtype=torch.float64, device="cpu")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """`knots` equidistant points from `low` to `high`, one of which is zero. Beyond them nothing is tabulated.

    `tolerance`: the largest error of a tabulated value, relative to max(1, |f|). The first and the second derivative
    may have 10 and 100 times that error. Whether a function meets the tolerance is measured.
    """

    low: float = -32.0
    high: float = 32.0
    knots: int = 1025
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise MixtureError(f"table: `low < high` must hold, but got (low={self.low}, high={self.high})")
        if type(self.knots) is not int or not 2 <= self.knots <= MOST_KNOTS:
            raise MixtureError(f"table: knots must be a whole number from 2 to {MOST_KNOTS}, but got {self.knots!r}")
        if not 0 < self.tolerance < 1:
            raise MixtureError(f"table: the tolerance must lie between 0 and 1, but got {self.tolerance}")
        if not self.low <= 0 <= self.high or abs(self.low / self.step - round(self.low / self.step)) > 1e-9:
            raise MixtureError(
                f"table: zero must be a knot, but {self.knots} knots from {self.low} to {self.high} are "
                f"{self.step:.6g} apart and miss it"
            )

    @property
    def step(self) -> float:
        """Distance of two knots."""
        return (self.high - self.low) / (self.knots - 1)

    @property
    def below(self) -> int:
        """Number of cells below zero."""
        return round(-self.low / self.step)

    @property
    def above(self) -> int:
        """Number of cells above zero."""
        return self.knots - 1 - self.below

    @property
    def cells(self) -> int:
        """Number of all cells: those below zero, one for zero itself, and those above."""
        return self.knots

    def inside(self, x: Tensor) -> Tensor:
        """Mask of the elements of x (float32 or float64) that fall into a cell, by the same rule as the native code."""
        u = x * (1 / self.step)
        return (u > -self.below).logical_and(u < self.above).logical_or(x == 0)

    def points(self, at: Tensor) -> Tensor:
        """The points `at` of every cell -> (cells, P), with 0 in the cell of zero.

        `at` (P,) is in units of a cell and counts away from zero.
        """
        left = -torch.arange(self.below - 1, -1, -1, dtype=torch.float64)[:, None] - at
        right = torch.arange(self.above, dtype=torch.float64)[:, None] + at
        return torch.cat([left, torch.zeros(1, len(at), dtype=torch.float64), right]) * self.step

    def fit(self, function: Callable[[Tensor], Tensor], order: int) -> Tensor:
        """Fit the `order`-th derivative: the cubic through four points of each cell -> (cells, 4), float64.

        The coefficients are of powers of t = x / step - trunc(x / step), which has the sign of x. A derivative is
        sampled just inside the cell, so that a kink on a knot adds no error. Error: h^4 f'''' / 1944.
        """
        nodes = _NODES if order == 0 else _NODES.clamp(_MARGIN, 1 - _MARGIN)
        cubic: Tensor = derivative(function, self.points(nodes), order) @ _TO_CUBIC.T
        cubic[: self.below, 1::2] *= -1
        cubic[self.below, 1:] = 0
        return cubic

    def error(self, function: Callable[[Tensor], Tensor], order: int, cubic: Tensor) -> float:
        """The largest error of the coefficients `cubic` between the nodes, relative to max(1, |derivative|)."""
        true = derivative(function, self.points(_PROBES), order)
        t = _PROBES.expand(self.cells, -1).clone()
        t[: self.below] *= -1
        t[self.below] = 0
        c0, c1, c2, c3 = (part.unsqueeze(1) for part in cubic.unbind(1))
        found = c0 + t * (c1 + t * (c2 + t * c3))
        return float(((found - true).abs() / true.abs().clamp_min(1)).nan_to_num(math.inf).max())


def derivative(function: Callable[[Tensor], Tensor], x: Tensor, order: int) -> Tensor:
    """The `order`-th derivative of an elementwise function at x, in the dtype of x."""
    x = x.detach().requires_grad_(order > 0)
    with torch.enable_grad():
        y = function(x)
        for level in range(order):
            if not y.requires_grad:
                return torch.zeros_like(x)
            (y,) = torch.autograd.grad(y.sum(), x, create_graph=level + 1 < order, materialize_grads=True)
    return y.detach().expand_as(x)


def find_obstacle(grid: Grid, name: str) -> str | None:
    """Return why `name` cannot be tabulated on `grid`, by its record or else by measurement; None if it can."""
    return declared_obstacle(grid, name) or measured_obstacle(grid, name)


def declared_obstacle(grid: Grid, name: str) -> str | None:
    """Return what in the candidate's record excludes a table with any number of knots; None for nothing."""
    candidate = activations.get(name)
    if not candidate.elementwise:
        return "it couples features"
    if candidate.betas:
        return "it has a learnable parameter"
    if candidate.jumps:
        return "it jumps"
    off = [kink for kink in candidate.kinks if grid.low < kink < grid.high and not _on_knot(grid, kink)]
    if off and not any(_on_knot(finer, off[0]) for finer in _finer(grid)):
        return f"its kink at {off[0]:g} is not on a knot, nor on one of any finer table"
    return None


@lru_cache(maxsize=256)
def measured_obstacle(grid: Grid, name: str) -> str | None:
    """Return why the errors of a table on `grid` are too large; None if they are not.

    Assumes that `declared_obstacle` found nothing.
    """
    candidate = activations.get(name)
    off = [kink for kink in candidate.kinks if grid.low < kink < grid.high and not _on_knot(grid, kink)]
    if off:
        return f"its kink at {off[0]:g} is not on one of the {grid.knots} knots"
    try:
        return _run_in_clean_thread(_measure, grid, candidate)
    except Exception as error:  # a user's function may raise anything at the arguments that are chosen here
        return "it cannot be differentiated twice: " + str(error).partition("\n")[0]


def find_enough_knots(grid: Grid, name: str) -> int | None:
    """Number of knots of the coarsest refinement of `grid` that can hold the candidate; None if there is none."""
    return next((finer.knots for finer in _finer(grid) if find_obstacle(finer, name) is None), None)


def _finer(grid: Grid) -> Iterator[Grid]:
    """`grid` with 2, 4, 8, ... times the cells, up to MOST_KNOTS."""
    knots = 2 * grid.knots - 1
    while knots <= MOST_KNOTS:
        yield replace(grid, knots=knots)
        knots = 2 * knots - 1


def _run_in_clean_thread(compute: Callable[..., T], *arguments: Any) -> T:
    """Return `compute(*arguments)`, run in a new thread, where the caller's torch modes do not apply.

    The result is cached for the rest of the process. It must not depend on inference mode, autocast, a default device,
    fake tensors, hooks on saved tensors (checkpointing), ...
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(compute, *arguments).result()


def _on_knot(grid: Grid, x: float) -> bool:
    return abs(x / grid.step - round(x / grid.step)) < 1e-9


def _measure(grid: Grid, candidate: Candidate) -> str | None:
    probes = grid.points(_PROBES)
    together, row_by_row = candidate.function(probes), torch.cat([candidate.function(row) for row in probes[::37]])
    if not torch.allclose(together[::37].reshape(-1), row_by_row, rtol=1e-9, atol=1e-9, equal_nan=True):
        return f"{NOT_ELEMENTWISE}: its value at one element depends on the others"
    for order in range(ORDERS):
        error = grid.error(candidate.function, order, grid.fit(candidate.function, order))
        allowed = SLACK[order] * grid.tolerance
        if error > allowed:
            too_large = f"its {ORDER_NAMES[order]} would be off by {error:.1e}, more than {allowed:.1e}"
            return f"{too_large}, with {grid.knots} knots"
    return None


@dataclass(frozen=True, eq=False)
class Basis:
    """The cells of K functions, float32: `coefficients[n]` (K, cells, 4) are those of the n-th derivatives.

    `packed[n]` holds the same numbers as (cells, 4, width): K padded with zeros to `width`.
    """

    grid: Grid
    names: tuple[str, ...]
    coefficients: tuple[Tensor, ...]
    packed: tuple[Tensor, ...] = field(repr=False)

    @property
    def functions(self) -> list[Callable[..., Tensor]]:
        return [activations.get(name).function for name in self.names]


@lru_cache(maxsize=64)
def basis(grid: Grid, names: tuple[str, ...]) -> Basis:
    """The tables of the candidates `names`, computed once per process. No candidate may have an obstacle."""
    width = next((width for width in (8, 16, 32) if len(names) <= width), 64)
    return _run_in_clean_thread(_fit_basis, grid, names, width)


def _fit_basis(grid: Grid, names: tuple[str, ...], width: int) -> Basis:
    coefficients = [
        torch.stack([grid.fit(activations.get(name).function, order) for name in names]).to(torch.float32)
        for order in range(ORDERS)
    ]
    packed = [
        torch.nn.functional.pad(each.permute(1, 2, 0), (0, max(0, width - len(names)))).contiguous()
        for each in coefficients
    ]
    return Basis(grid, names, tuple(coefficients), tuple(packed))
