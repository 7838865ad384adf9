"""`auto`: the fastest kernel that is accurate enough for the input at hand, and why it is that one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from nasact.mixture.kernels.fused import FusedOp
from nasact.mixture.kernels.record import Choice, Term
from nasact.mixture.kernels.table import Table, TableOp, split
from nasact.mixture.layout import Layout
from nasact.mixture.table import native


@dataclass(frozen=True, kw_only=True)
class Automatic:
    """The table on a CPU for float32 and bfloat16, else fused. `nasact check` tells which, and why, for every site."""

    name: ClassVar[str] = "auto"
    summary: ClassVar[str] = (
        "the table on a CPU for float32 and bfloat16, else fused; `nasact check` says which and why"
    )

    def prepare(self, names: Sequence[str], layout: Layout, where: str) -> AutomaticOp:
        return AutomaticOp(split(Table(), names, layout, where))


@dataclass(frozen=True)
class AutomaticOp:
    table: TableOp

    @property
    def fused(self) -> FusedOp:
        return self.table.analytic

    def __call__(self, x: Tensor, weights: Tensor, terms: Sequence[Term]) -> Tensor:
        if self.table.task is not None and x.device.type == "cpu" and x.dtype in native.DTYPES:
            return self.table(x, weights, terms)
        return self.fused(x, weights, terms)

    def choose(self, device: torch.device, dtype: torch.dtype) -> Choice:
        kind = str(dtype).removeprefix("torch.")
        if self.table.task is None:
            return Choice("fused", "no candidate can be tabulated", self.table.beside)
        if device.type != "cpu":
            return Choice("fused", f"on {device.type} arithmetic is cheaper than looking up")
        if dtype not in native.DTYPES:
            return Choice("fused", f"the table is for float32 and bfloat16, not for {kind}")
        found = native.load()
        how = f"in plain torch: {found}" if isinstance(found, str) else "in native code"
        return replace(self.table.choose(device, dtype), reason=f"{kind} on a CPU, {how}")
