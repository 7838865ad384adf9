"""`table`: interpolation. Costs about one activation for any K, and saves only x."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nasact.errors import MixtureError
from nasact.mixture.kernels.base import KERNELS, Choice, Terms
from nasact.mixture.kernels.fused import Fused, FusedOp
from nasact.mixture.kernels.reference import mix
from nasact.mixture.layout import Layout
from nasact.mixture.table import compiled, native, op
from nasact.mixture.table.basis import (
    MOST_KNOTS,
    NOT_ELEMENTWISE,
    Grid,
    basis,
    declared_obstacle,
    find_enough_knots,
    find_obstacle,
    measured_obstacle,
)
from nasact.mixture.torch_transforms import is_transformed, unsafe_reason
from nasact.reserved_names import ORIGINAL


@dataclass(frozen=True, kw_only=True)
class Table(Grid):
    """Each candidate, its slope and its curvature as a piecewise cubic on `knots` points from `low` to `high`.

    Errors are below `tolerance` (10 and 100 times that for the derivatives), measured for every candidate: a bank with
    a candidate that exceeds it is refused. A candidate that has a learnable parameter, jumps or couples features is
    computed as in `fused`. Outside the knots, and for inf and NaN, the functions themselves are computed. Native code
    for float32 and bfloat16 on a CPU, else plain torch. Float64 is refused: a table does not have that many digits.
    """

    name: ClassVar[str] = "table"
    summary: ClassVar[str] = (
        "cubic interpolation: costs about one activation whatever K is; errors bounded and measured"
    )

    def prepare(self, names: Sequence[str], layout: Layout, where: str) -> TableOp:
        """Build the tables now, so that a bank that cannot have them is refused when it is built."""
        prepared = split(self, names, layout, where)
        grid = _grid(self)
        for name, _ in prepared.untabulated:
            if name != ORIGINAL and declared_obstacle(grid, name) is None:
                raise MixtureError(f"{where}: kernel 'table' cannot hold {name!r}: {_explain(grid, name)}")
        if prepared.bank is None:
            name, reason = prepared.untabulated[0]
            raise MixtureError(f"{where}: kernel 'table' can hold none of the candidates; {name!r}: {reason}")
        return prepared


@dataclass(frozen=True)
class TableOp:
    """The op of `table` for one bank, split into a tabulated part and a part that `fused` computes.

    `bank`: the tabulated candidates, None where no candidate can be tabulated. `table_at`, `fused_at`: positions of the
    two parts in the whole bank. `untabulated`: (name, reason) of each candidate at `fused_at`.
    """

    bank: op.TabulatedBank | None
    table_at: tuple[int, ...]
    fused_at: tuple[int, ...]
    untabulated: tuple[tuple[str, str], ...]
    fused: FusedOp
    where: str

    def choose(self, device: torch.device, dtype: torch.dtype) -> Choice:
        self._refuse_float64(dtype)
        unsafe = unsafe_reason()
        if unsafe is not None:
            return Choice("reference", unsafe)
        return Choice("table", f"as requested, {native.describe_lookup(device, dtype)}", self.untabulated)

    def _refuse_float64(self, dtype: torch.dtype) -> None:
        if dtype == torch.float64:
            raise MixtureError(
                f"{self.where}: kernel 'table' holds float32 and cannot compute float64: use auto, fused or reference"
            )

    def __call__(self, x: Tensor, weights: Tensor, terms: Terms) -> Tensor:
        self._refuse_float64(x.dtype)
        if is_transformed(x, weights):
            return mix(x, weights, terms(), self.fused.layout)
        return self.look_up(x, weights, terms)

    def look_up(self, x: Tensor, weights: Tensor, terms: Terms) -> Tensor:
        """Compute the mixture of tensors that torch does not transform."""
        assert self.bank is not None
        if weights.device != x.device:
            raise MixtureError(f"{self.where}: the input is on {x.device}, but its weights are on {weights.device}")
        mix_tabulated = compiled.mix if torch.compiler.is_compiling() else op.mix
        if not self.fused_at:
            return mix_tabulated(self.bank, x, weights)
        y = mix_tabulated(self.bank, x, weights[..., list(self.table_at)])
        fused_at, all_terms = list(self.fused_at), terms()
        rest = self.fused.compute(x, weights[..., fused_at], [all_terms[k] for k in fused_at])
        total = y + rest
        return total if total.dtype == rest.dtype else total.to(rest.dtype)


def _explain(grid: Grid, name: str) -> str:
    """Why a candidate misses the tolerance though its record declares no obstacle, and what would help."""
    reason = measured_obstacle(grid, name)
    if reason is not None and reason.startswith(NOT_ELEMENTWISE):
        return f"{reason}, though its record says otherwise; register it with elementwise=False"
    knots = find_enough_knots(grid, name)
    if knots is None:
        return f"{reason}; no number up to {MOST_KNOTS} is enough: does its record name all its kinks and jumps?"
    return f"{reason}; {knots} are enough"


def _grid(grid: Grid) -> Grid:
    """A plain Grid with the same numbers: the key under which tables are cached, also for a subclass such as Table."""
    return Grid(low=grid.low, high=grid.high, knots=grid.knots, tolerance=grid.tolerance)


def split(grid: Grid, names: Sequence[str], layout: Layout, where: str) -> TableOp:
    """Build the tables of the candidates that can have one, and the op that computes both parts of the bank."""
    grid = _grid(grid)
    reasons = {name: "it is the model's own" if name == ORIGINAL else find_obstacle(grid, name) for name in names}
    table_at = tuple(k for k, name in enumerate(names) if reasons[name] is None)
    bank = op.TabulatedBank(grid, tuple(names[k] for k in table_at), layout) if table_at else None
    if bank is not None:
        basis(bank.grid, bank.names)
    return TableOp(
        bank=bank,
        table_at=table_at,
        fused_at=tuple(k for k in range(len(names)) if k not in table_at),
        untabulated=tuple((name, reason) for name, reason in reasons.items() if reason is not None),
        fused=Fused().prepare(names, layout, where),
        where=where,
    )


KERNELS.register(Table.name, Table)
