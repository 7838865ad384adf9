"""`auto`: the fastest kernel that is accurate enough for an input, with the reason for the choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from nasact.mixture.kernels.base import KERNELS, Choice, Terms
from nasact.mixture.kernels.fused import FusedOp
from nasact.mixture.kernels.reference import mix
from nasact.mixture.kernels.table import Table, TableOp, split
from nasact.mixture.layout import Layout
from nasact.mixture.table import native
from nasact.mixture.torch_transforms import is_transformed, unsafe_reason

ENOUGH = 6
"""Number of candidates from which on a table in plain torch is faster than their formulas.

Measured with one thread, input 64 x 32 x 30 x 30, forward and backward: the table takes 60 ms for any number; `fused`
takes 50, 74 and 213 ms for 4, 6 and 13 candidates; native code takes 9 ms.
"""


@dataclass(frozen=True, kw_only=True)
class Automatic:
    """`table` on a CPU for float32 and bfloat16, else `fused`. `nasact check` lists the choice and its reason per site.

    Without native code (no compiler), `table` is used for banks that are large enough for it to be faster than `fused`.
    """

    name: ClassVar[str] = "auto"
    summary: ClassVar[str] = (
        "the table on a CPU for float32 and bfloat16, else fused; `nasact check` says which and why"
    )

    def prepare(self, names: Sequence[str], layout: Layout, where: str) -> AutomaticOp:
        return AutomaticOp(split(Table(), names, layout, where))


@dataclass(frozen=True)
class AutomaticOp:
    """The op of `auto` for one bank: `table`, and the `fused` op that it contains."""

    table: TableOp

    @property
    def fused(self) -> FusedOp:
        return self.table.fused

    def __call__(self, x: Tensor, weights: Tensor, terms: Terms) -> Tensor:
        if self.table.bank is None or x.device.type != "cpu" or x.dtype not in native.DTYPES:
            return self.fused(x, weights, terms)
        if is_transformed(x, weights):
            return mix(x, weights, terms(), self.fused.layout)
        # torch.compile cannot trace the search for native code, and need not: the custom op that it calls does it
        if torch.compiler.is_compiling() or native.library() is not None or self._pays(x):
            return self.table.look_up(x, weights, terms)
        return self.fused(x, weights, terms)

    def _pays(self, x: Tensor | None = None) -> bool:
        """Whether the table is faster in plain torch, for x or, without x, for an input of the usual size."""
        bank = self.table.bank
        if bank is None or len(bank.names) < ENOUGH or bank.layout.level == "neuron":
            return False
        rows = 1 if bank.layout.level == "layer" else bank.layout.shape[0]
        return x is None or x.numel() >= rows * bank.grid.cells

    def choose(self, device: torch.device, dtype: torch.dtype) -> Choice:
        kind = str(dtype).removeprefix("torch.")
        bank, unsafe = self.table.bank, unsafe_reason()
        if unsafe is not None:
            return Choice("reference", unsafe)
        if bank is None:
            return Choice("fused", "no candidate can be tabulated", self.table.untabulated)
        if device.type != "cpu":
            return Choice("fused", f"the table's native code is for a CPU, not for {device.type}")
        if dtype not in native.DTYPES:
            return Choice("fused", f"the table is for float32 and bfloat16, not for {kind}")
        loaded = native.load()
        if not isinstance(loaded, str):
            return replace(self.table.choose(device, dtype), reason=f"{kind} on a CPU, in native code")
        if self._pays():
            reason = f"{kind} on a CPU, in plain torch and several times slower: {loaded}"
            return replace(self.table.choose(device, dtype), reason=reason)
        small = "at neuron level" if bank.layout.level == "neuron" else f"with {len(bank.names)} candidates"
        return Choice("fused", f"{small} it is faster than a table without native code: {loaded}")


KERNELS.register(Automatic.name, Automatic)
