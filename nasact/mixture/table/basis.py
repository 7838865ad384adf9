"""The cells of a bank: K functions and their derivatives as piecewise cubics, with the error measured as they are made.

Knows functions and numbers; no autograd op, no device but the CPU, no native code.
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
"""Values, slopes and curvatures: what a gradient of a gradient needs."""

ORDER_NAMES = ("value", "slope", "curvature")
SLACK = (1.0, 10.0, 100.0)
"""Tolerances of the three orders, in units of the table's: a derivative varies faster than its function."""
MOST_KNOTS = 1 << 16
NOT_ELEMENTWISE = "it is not elementwise"

_NODES = torch.tensor([0.0, 1 / 3, 2 / 3, 1.0], dtype=torch.float64, device="cpu")
_TO_CUBIC = torch.linalg.inv(torch.stack([_NODES**power for power in range(4)], dim=1))
_INSIDE = 1e-7
"""How far inside its cell, in units of the cell, a derivative is sampled where the cell ends: kinks lie on knots."""
_PROBES = torch.tensor([1e-4, 0.07, 0.19, 0.41, 0.5, 0.62, 0.81, 0.93, 1 - 1e-4], dtype=torch.float64, device="cpu")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """`knots` equidistant points from `low` to `high`; zero is one of them. Beyond them nothing is tabulated.

    `tolerance`: the largest error of a tabulated value, relative to max(1, |f|); 10 and 100 times as much is allowed to
    the first and the second derivative. Which function meets it is measured, not assumed.
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
        return (self.high - self.low) / (self.knots - 1)

    @property
    def below(self) -> int:
        """Cells below zero."""
        return round(-self.low / self.step)

    @property
    def above(self) -> int:
        return self.knots - 1 - self.below

    @property
    def cells(self) -> int:
        """Those below zero, one for zero itself, those above."""
        return self.knots

    def inside(self, x: Tensor) -> Tensor:
        """Where x (float32 and up) falls into a cell: exactly as the native code decides."""
        u = x * (1 / self.step)
        return (u > -self.below).logical_and(u < self.above).logical_or(x == 0)

    def points(self, at: Tensor) -> Tensor:
        """(cells, P): the points `at` (P,), in units of a cell and away from zero, of every cell; 0 for zero's own."""
        left = -torch.arange(self.below - 1, -1, -1, dtype=torch.float64)[:, None] - at
        right = torch.arange(self.above, dtype=torch.float64)[:, None] + at
        return torch.cat([left, torch.zeros(1, len(at), dtype=torch.float64), right]) * self.step

    def fit(self, function: Callable[[Tensor], Tensor], order: int) -> Tensor:
        """Coefficients (cells, 4), float64, of the `order`-th derivative: the cubic through four points of each cell.

        The powers are those of t = x / step - trunc(x / step), which has the sign of x. A derivative is taken just
        inside the cell, so that a kink on a knot costs nothing. Error: h^4 f'''' / 1944.
        """
        nodes = _NODES if order == 0 else _NODES.clamp(_INSIDE, 1 - _INSIDE)
        cubic: Tensor = derivative(function, self.points(nodes), order) @ _TO_CUBIC.T
        cubic[: self.below, 1::2] *= -1
        cubic[self.below, 1:] = 0
        return cubic

    def error(self, function: Callable[[Tensor], Tensor], order: int, cubic: Tensor) -> float:
        """The largest error of `cubic` between its nodes, relative to max(1, |derivative|)."""
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


def obstacle(grid: Grid, name: str) -> str | None:
    """Why the candidate `name` cannot be tabulated on `grid`; None where it can. Facts first, then measurement."""
    return declared(grid, name) or measured(grid, name)


def declared(grid: Grid, name: str) -> str | None:
    """What the candidate's record says against a table, whatever its knots."""
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
def measured(grid: Grid, name: str) -> str | None:
    """What the numbers say against a table of a candidate whose record says nothing against it."""
    candidate = activations.get(name)
    off = [kink for kink in candidate.kinks if grid.low < kink < grid.high and not _on_knot(grid, kink)]
    if off:
        return f"its kink at {off[0]:g} is not on one of the {grid.knots} knots"
    try:
        return _undisturbed(_measured, grid, candidate)
    except Exception as error:  # a user's function, at arguments of our choice
        return "it cannot be differentiated twice: " + str(error).partition("\n")[0]


def enough_knots(grid: Grid, name: str) -> int | None:
    """The knots of the coarsest refinement of `grid` that can hold the candidate; None where there is none."""
    return next((finer.knots for finer in _finer(grid) if obstacle(finer, name) is None), None)


def _finer(grid: Grid) -> Iterator[Grid]:
    """`grid` with 2, 4, 8, ... times as many cells, as long as it may have them."""
    knots = 2 * grid.knots - 1
    while knots <= MOST_KNOTS:
        yield replace(grid, knots=knots)
        knots = 2 * knots - 1


def _undisturbed(compute: Callable[..., T], *arguments: Any) -> T:
    """Computed in a thread of its own: no mode of the caller reaches what is kept for the rest of the process.

    Those are: inference mode, autocast, a default device, fake tensors, hooks on saved tensors (checkpointing), ...
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(compute, *arguments).result()


def _on_knot(grid: Grid, x: float) -> bool:
    return abs(x / grid.step - round(x / grid.step)) < 1e-9


def _measured(grid: Grid, candidate: Candidate) -> str | None:
    probes = grid.points(_PROBES)
    together, apart = candidate.function(probes), torch.cat([candidate.function(row) for row in probes[::37]])
    if not torch.allclose(together[::37].reshape(-1), apart, rtol=1e-9, atol=1e-9, equal_nan=True):
        return f"{NOT_ELEMENTWISE}: what it makes of a number depends on the others"
    for order in range(ORDERS):
        error = grid.error(candidate.function, order, grid.fit(candidate.function, order))
        allowed = SLACK[order] * grid.tolerance
        if error > allowed:
            what = f"its {ORDER_NAMES[order]} would be off by {error:.1e}, more than {allowed:.1e}"
            return f"{what}, with {grid.knots} knots"
    return None


@dataclass(frozen=True, eq=False)
class Basis:
    """The cells of K functions, float32: `coefficients[n]` (K, cells, 4) of the n-th derivatives.

    `packed[n]` holds the same numbers as (cells, 4, width), K padded with zeros.
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
    """The tables of the candidates `names`, computed once a process; all of them must be free of obstacles."""
    width = next((width for width in (8, 16, 32) if len(names) <= width), 64)
    return _undisturbed(_basis, grid, names, width)


def _basis(grid: Grid, names: tuple[str, ...], width: int) -> Basis:
    coefficients = [
        torch.stack([grid.fit(activations.get(name).function, order) for name in names]).to(torch.float32)
        for order in range(ORDERS)
    ]
    packed = [
        torch.nn.functional.pad(each.permute(1, 2, 0), (0, max(0, width - len(names)))).contiguous()
        for each in coefficients
    ]
    return Basis(grid, names, tuple(coefficients), tuple(packed))
