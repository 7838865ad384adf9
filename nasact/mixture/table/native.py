"""The table op in native code: contiguous CPU tensors in float32 or bfloat16. ctypes lets go of the GIL meanwhile."""

from __future__ import annotations

import ctypes
import os
import warnings
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nasact.mixture.table import build
from nasact.mixture.table.basis import Basis

DTYPES = (torch.float32, torch.bfloat16)
GRAIN = 1 << 15
"""Elements a thread, at least: torch's own grain."""


Shape = tuple[int, int, int]
"""(outer, rows, inner): how an input lies over the rows of its weights."""


class _Table(ctypes.Structure):
    """NasactTable of mixture.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("k", "zero", "cells")),
        *((name, ctypes.c_float) for name in ("scale", "low", "high")),
        ("basis", ctypes.c_void_p * 3),
        ("packed", ctypes.c_void_p * 3),
    )


_COMMON = (ctypes.POINTER(_Table), *(ctypes.c_int64,) * 3, *(ctypes.c_int,) * 2)
_TENSORS = {"nasact_forward": 3, "nasact_backward": 5, "nasact_second": 8}


@dataclass(frozen=True)
class Library:
    """The loaded code, and the process that loaded it: a forked child has none of its threads."""

    code: ctypes.CDLL
    process: int

    @classmethod
    def open(cls, path: Path) -> Library:
        code = ctypes.CDLL(str(path), mode=os.RTLD_NOW | os.RTLD_LOCAL)
        for name, tensors in _TENSORS.items():
            function = getattr(code, name)
            function.restype = ctypes.c_int64
            function.argtypes = (*_COMMON, *(ctypes.c_void_p,) * tensors)
        return cls(code, os.getpid())

    def threads(self, elements: int) -> int:
        if os.getpid() != self.process:
            return 1
        return max(1, min(torch.get_num_threads(), elements // GRAIN))


@lru_cache(maxsize=1)
def load() -> Library | str:
    """The native code, built if need be; or why there is none. Asked once a process."""
    try:
        return Library.open(build.build())
    except (build.CannotBuild, OSError, ImportError, AttributeError) as error:
        return str(error).partition("\n")[0]


_warnings = count()


def library() -> Library | None:
    """The native code, or None after one warning a process that says why."""
    found = load()
    if not isinstance(found, str):
        return found
    if next(_warnings) == 0:  # also where several threads come at once
        warnings.warn(
            f"nasact: the mixture op runs in plain torch, several times slower: {found}", RuntimeWarning, stacklevel=2
        )
    return None


def serves(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype in DTYPES


def how(device: torch.device, dtype: torch.dtype) -> str:
    """How the table is looked up for such inputs."""
    if device.type != "cpu" or dtype not in DTYPES:
        kind = str(dtype).removeprefix("torch.")
        return f"in plain torch: the native code is for float32 and bfloat16 on a CPU, not for {kind} on {device.type}"
    found = load()
    return f"in plain torch: {found}" if isinstance(found, str) else "in native code"


def forward(code: Library, basis: Basis, shape: Shape, x: Tensor, weights: Tensor, y: Tensor) -> int:
    """`sum_k p_k f_k(x)` into y; returns how many elements lie outside the cells (there y is left undefined).

    x and y hold the elements of `shape` in that order, whatever their own shapes; weights float32, (rows, K).
    """
    return int(
        code.code.nasact_forward(*_common(code, basis, shape, x), x.data_ptr(), weights.data_ptr(), y.data_ptr())
    )


def backward(
    code: Library,
    basis: Basis,
    shape: Shape,
    x: Tensor,
    weights: Tensor,
    g: Tensor,
    dx: Tensor,
    dweights: Tensor | None,
) -> int:
    """`g L1(x, p)` into dx and `A0(x, g)` into dweights, to which elements outside add nothing."""
    pointers = (_at(tensor) for tensor in (x, g, weights, dx, dweights))
    return int(code.code.nasact_backward(*_common(code, basis, shape, x), *pointers))


def second(
    code: Library,
    basis: Basis,
    shape: Shape,
    x: Tensor,
    weights: Tensor,
    g: Tensor,
    a: Tensor,
    c: Tensor | None,
    dg: Tensor,
    dx: Tensor,
    dweights: Tensor | None,
) -> int:
    """`a L1(x, p) + L0(x, c)` into dg, `g (a L2(x, p) + L1(x, c))` into dx, `A1(x, a g)` into dweights."""
    pointers = (_at(tensor) for tensor in (x, g, a, weights, c, dg, dx, dweights))
    return int(code.code.nasact_second(*_common(code, basis, shape, x), *pointers))


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _common(code: Library, basis: Basis, shape: Shape, x: Tensor) -> tuple[Any, ...]:
    return ctypes.byref(_table(basis)), *shape, code.threads(x.numel()), x.dtype == torch.bfloat16


@lru_cache(maxsize=64)
def _table(basis: Basis) -> _Table:
    grid = basis.grid
    found = _Table(len(basis.names), grid.below, grid.cells, 1 / grid.step, -grid.below, grid.above)
    for order in range(3):
        found.basis[order] = basis.coefficients[order].data_ptr()
        found.packed[order] = basis.packed[order].data_ptr()
    return found
