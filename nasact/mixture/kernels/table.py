"""`table`: interpolation. What one activation costs, whatever K is, and keeps x only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nasact.errors import MixtureError
from nasact.mixture.kernels.base import ORIGINAL, Choice, Terms
from nasact.mixture.kernels.context import blind, transformed
from nasact.mixture.kernels.fused import Fused, FusedOp
from nasact.mixture.kernels.reference import mix
from nasact.mixture.layout import Layout
from nasact.mixture.table import compiled, native, op
from nasact.mixture.table.basis import (
    MOST_KNOTS,
    NOT_ELEMENTWISE,
    Grid,
    basis,
    declared,
    enough_knots,
    measured,
    obstacle,
)


@dataclass(frozen=True, kw_only=True)
class Table(Grid):
    """Each candidate, its slope and its curvature as a piecewise cubic on `knots` points from `low` to `high`.

    Errors are below `tolerance` (10 and 100 times that for the derivatives), measured for every candidate: a bank with
    one that does not get there is refused. One that has a learnable parameter, jumps or couples features is computed as
    `fused` does. Outside the knots, and for inf and NaN, the functions themselves. Float32 and bfloat16 on a CPU in
    native code; elsewhere in plain torch. Float64 would promise digits that the table does not have, and is refused.
    """

    name: ClassVar[str] = "table"
    summary: ClassVar[str] = (
        "cubic interpolation: costs about one activation whatever K is; errors bounded and measured"
    )

    def prepare(self, names: Sequence[str], layout: Layout, where: str) -> TableOp:
        """Make the tables now, so that a bank that cannot have them is refused when it is built."""
        made = split(self, names, layout, where)
        grid = _grid(self)
        for name, _ in made.beside:
            if name != ORIGINAL and declared(grid, name) is None:
                raise MixtureError(f"{where}: kernel 'table' cannot hold {name!r}: {_missed(grid, name)}")
        if made.task is None:
            name, reason = made.beside[0]
            raise MixtureError(f"{where}: kernel 'table' can serve none of the candidates; {name!r}: {reason}")
        return made


@dataclass(frozen=True)
class TableOp:
    """`inside` and `outside` are positions in the bank: what is tabulated, and what is computed beside it."""

    task: op.Task | None
    inside: tuple[int, ...]
    outside: tuple[int, ...]
    beside: tuple[tuple[str, str], ...]
    analytic: FusedOp
    where: str

    def choose(self, device: torch.device, dtype: torch.dtype) -> Choice:
        self._refuse(dtype)
        unsafe = blind()
        if unsafe is not None:
            return Choice("reference", unsafe)
        return Choice("table", f"as asked for, {native.how(device, dtype)}", self.beside)

    def _refuse(self, dtype: torch.dtype) -> None:
        if dtype == torch.float64:
            raise MixtureError(
                f"{self.where}: kernel 'table' holds float32 and cannot serve float64: use auto, fused or reference"
            )

    def __call__(self, x: Tensor, weights: Tensor, terms: Terms) -> Tensor:
        self._refuse(x.dtype)
        if transformed(x, weights):
            return mix(x, weights, terms(), self.analytic.layout)
        return self.look_up(x, weights, terms)

    def look_up(self, x: Tensor, weights: Tensor, terms: Terms) -> Tensor:
        """The mixture, of tensors that are what they seem."""
        assert self.task is not None
        if weights.device != x.device:
            raise MixtureError(f"{self.where}: the input is on {x.device}, but its weights are on {weights.device}")
        mixed = compiled.mix if torch.compiler.is_compiling() else op.mix
        if not self.outside:
            return mixed(self.task, x, weights)
        y = mixed(self.task, x, weights[..., list(self.inside)])
        outside, made = list(self.outside), terms()
        return y + self.analytic.compute(x, weights[..., outside], [made[k] for k in outside])


def _missed(grid: Grid, name: str) -> str:
    """What a candidate misses that nothing in its record excuses, and what would help."""
    reason = measured(grid, name)
    if reason is not None and reason.startswith(NOT_ELEMENTWISE):
        return f"{reason}, though its record says otherwise; register it with elementwise=False"
    knots = enough_knots(grid, name)
    if knots is None:
        return f"{reason}; no number up to {MOST_KNOTS} would do: does its record name all its kinks and jumps?"
    return f"{reason}; {knots} would do"


def _grid(grid: Grid) -> Grid:
    """What tables are kept by: the numbers, whether or not they belong to a kernel."""
    return Grid(low=grid.low, high=grid.high, knots=grid.knots, tolerance=grid.tolerance)


def split(grid: Grid, names: Sequence[str], layout: Layout, where: str) -> TableOp:
    """Make the tables of the candidates that can have one; `task` is None where none can."""
    grid = _grid(grid)
    reasons = {name: "it is the model's own" if name == ORIGINAL else obstacle(grid, name) for name in names}
    inside = tuple(k for k, name in enumerate(names) if reasons[name] is None)
    task = op.Task(grid, tuple(names[k] for k in inside), layout) if inside else None
    if task is not None:
        basis(task.grid, task.names)
    return TableOp(
        task=task,
        inside=inside,
        outside=tuple(k for k in range(len(names)) if k not in inside),
        beside=tuple((name, reason) for name, reason in reasons.items() if reason is not None),
        analytic=Fused().prepare(names, layout, where),
        where=where,
    )
