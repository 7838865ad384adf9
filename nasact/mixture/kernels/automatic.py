"""`auto`: the fastest kernel that is accurate enough for the input at hand, and why it is that one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from nasact.mixture.kernels.base import Choice, Terms
from nasact.mixture.kernels.context import blind, transformed
from nasact.mixture.kernels.fused import FusedOp
from nasact.mixture.kernels.reference import mix
from nasact.mixture.kernels.table import Table, TableOp, split
from nasact.mixture.layout import Layout
from nasact.mixture.table import native

ENOUGH = 6
"""Candidates from which on a table in plain torch is faster than their formulas. One thread, 64 x 32 x 30 x 30, forward
and backward: the table 60 ms at any number, fused 50, 74 and 213 at 4, 6 and 13; native code 9."""


@dataclass(frozen=True, kw_only=True)
class Automatic:
    """The table on a CPU for float32 and bfloat16, else fused. `nasact check` tells which, and why, for every site.

    Without native code (no compiler) the table serves banks that are large enough for it to be faster than fused.
    """

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

    def __call__(self, x: Tensor, weights: Tensor, terms: Terms) -> Tensor:
        if self.table.task is None or x.device.type != "cpu" or x.dtype not in native.DTYPES:
            return self.fused(x, weights, terms)
        if transformed(x, weights):
            return mix(x, weights, terms(), self.fused.layout)
        # torch.compile cannot ask whether there is native code, and need not: the op that it calls does
        if torch.compiler.is_compiling() or native.library() is not None or self._pays(x):
            return self.table.look_up(x, weights, terms)
        return self.fused(x, weights, terms)

    def _pays(self, x: Tensor | None = None) -> bool:
        """Whether the table is worth it in plain torch, for x or for an input of the usual size."""
        task = self.table.task
        if task is None or len(task.names) < ENOUGH or task.layout.level == "neuron":
            return False
        rows = 1 if task.layout.level == "layer" else task.layout.shape[0]
        return x is None or x.numel() >= rows * task.grid.cells

    def choose(self, device: torch.device, dtype: torch.dtype) -> Choice:
        kind = str(dtype).removeprefix("torch.")
        task, unsafe = self.table.task, blind()
        if unsafe is not None:
            return Choice("reference", unsafe)
        if task is None:
            return Choice("fused", "no candidate can be tabulated", self.table.beside)
        if device.type != "cpu":
            return Choice("fused", f"the table's native code is for a CPU, not for {device.type}")
        if dtype not in native.DTYPES:
            return Choice("fused", f"the table is for float32 and bfloat16, not for {kind}")
        found = native.load()
        if not isinstance(found, str):
            return replace(self.table.choose(device, dtype), reason=f"{kind} on a CPU, in native code")
        if self._pays():
            reason = f"{kind} on a CPU, in plain torch and several times slower: {found}"
            return replace(self.table.choose(device, dtype), reason=reason)
        few = "at neuron level" if task.layout.level == "neuron" else f"with {len(task.names)} candidates"
        return Choice("fused", f"{few} it is faster than a table without native code: {found}")
