"""The table op in native code, for contiguous CPU tensors in float32 or bfloat16. ctypes releases the GIL in a call."""

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
"""Smallest number of elements per thread: torch's own grain."""


Shape = tuple[int, int, int]
"""(outer, rows, inner): the shape of an input, where `rows` counts the rows of its weights."""


class _Table(ctypes.Structure):
    """The struct NasactTable of mixture.cpp."""

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
    """The loaded code, and the id of the process that loaded it: in a forked child its threads do not exist."""

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
        """Number of threads for an input of `elements` elements; 1 in a forked child."""
        if os.getpid() != self.process:
            return 1
        return max(1, min(torch.get_num_threads(), elements // GRAIN))


@lru_cache(maxsize=1)
def load() -> Library | str:
    """Load the native code, building it first if needed; else return why there is none. Runs once per process."""
    try:
        return Library.open(build.build())
    except (build.BuildError, OSError, ImportError, AttributeError) as error:
        return str(error).partition("\n")[0]


_warnings = count()


def library() -> Library | None:
    """Return the native code, or None after one warning per process that gives the reason."""
    loaded = load()
    if not isinstance(loaded, str):
        return loaded
    if next(_warnings) == 0:  # a counter, so that several threads at once give one warning
        warnings.warn(
            f"nasact: the mixture op runs in plain torch, several times slower: {loaded}", RuntimeWarning, stacklevel=2
        )
    return None


def supports(x: Tensor) -> bool:
    """Whether the native code can compute an input like x."""
    return x.device.type == "cpu" and x.dtype in DTYPES


def describe_lookup(device: torch.device, dtype: torch.dtype) -> str:
    """State whether inputs of this device and dtype are looked up in native code or in plain torch, and why."""
    if device.type != "cpu" or dtype not in DTYPES:
        kind = str(dtype).removeprefix("torch.")
        return f"in plain torch: the native code is for float32 and bfloat16 on a CPU, not for {kind} on {device.type}"
    loaded = load()
    return f"in plain torch: {loaded}" if isinstance(loaded, str) else "in native code"


def forward(code: Library, basis: Basis, shape: Shape, x: Tensor, weights: Tensor, y: Tensor) -> int:
    """Write `sum_k p_k f_k(x)` to y; return the number of elements outside the cells, where y is left undefined.

    x and y hold the elements of `shape` in that order; their own shapes may differ. weights: (rows, K), float32.
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
    """Write `g L1(x, p)` to dx and `A0(x, g)` to dweights; return the number of elements outside the cells.

    Elements outside the cells add nothing to dweights.
    """
    pointers = (_address(tensor) for tensor in (x, g, weights, dx, dweights))
    return int(code.code.nasact_backward(*_common(code, basis, shape, x), *pointers))


def double_backward(
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
    """Write `a L1(x, p) + L0(x, c)` to dg, `g (a L2(x, p) + L1(x, c))` to dx and `A1(x, a g)` to dweights.

    Return the number of elements outside the cells, which add nothing to dweights.
    """
    pointers = (_address(tensor) for tensor in (x, g, a, weights, c, dg, dx, dweights))
    return int(code.code.nasact_second(*_common(code, basis, shape, x), *pointers))


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _common(code: Library, basis: Basis, shape: Shape, x: Tensor) -> tuple[Any, ...]:
    return ctypes.byref(_table(basis)), *shape, code.threads(x.numel()), x.dtype == torch.bfloat16


@lru_cache(maxsize=64)
def _table(basis: Basis) -> _Table:
    grid = basis.grid
    table = _Table(len(basis.names), grid.below, grid.cells, 1 / grid.step, -grid.below, grid.above)
    for order in range(3):
        table.basis[order] = basis.coefficients[order].data_ptr()
        table.packed[order] = basis.packed[order].data_ptr()
    return table
