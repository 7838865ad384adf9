"""The table op in native code: contiguous CPU tensors in float32 or bfloat16. ctypes lets go of the GIL meanwhile."""

from __future__ import annotations

import ctypes
import os
import warnings
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

import torch
from torch import Tensor

from nasact.mixture.table import build
from nasact.mixture.table.basis import Basis

DTYPES = (torch.float32, torch.bfloat16)
WIDEST = 64
"""Candidates that the native code evaluates one by one, where few elements share their weights."""
GRAIN = 1 << 15
"""Elements a thread, at least: torch's own grain."""


class _Call(ctypes.Structure):
    """NasactCall of mixture.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("outer", "rows", "inner", "k", "zero", "cells")),
        *((name, ctypes.c_float) for name in ("scale", "low", "high")),
        *((name, ctypes.c_int32) for name in ("threads", "bf16", "direct")),
        ("basis", ctypes.c_void_p * 3),
        ("packed", ctypes.c_void_p * 3),
    )


@dataclass(frozen=True)
class Library:
    """The loaded code, and the process that loaded it: a forked child has none of its threads."""

    code: ctypes.CDLL
    process: int

    def threads(self, elements: int) -> int:
        if os.getpid() != self.process:
            return 1
        return max(1, min(torch.get_num_threads(), elements // GRAIN))


@lru_cache(maxsize=1)
def load() -> Library | str:
    """The native code, built if need be; or why there is none. Asked once a process."""
    try:
        code = ctypes.CDLL(str(build.build()), mode=os.RTLD_NOW | os.RTLD_LOCAL)
        for function in (code.nasact_forward, code.nasact_backward, code.nasact_second):
            function.restype = ctypes.c_int64
    except (build.CannotBuild, OSError, ImportError, AttributeError) as error:
        return str(error).partition("\n")[0]
    return Library(code, os.getpid())


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


def forward(code: Library, basis: Basis, x: Tensor, weights: Tensor, y: Tensor) -> int:
    """`sum_k p_k f_k(x)` into y; returns how many elements lie outside the cells (there y is left undefined)."""
    call = _call(code, basis, x, weights)
    return int(code.code.nasact_forward(ctypes.byref(call), _at(x), _at(weights), _at(y)))


def backward(
    code: Library, basis: Basis, x: Tensor, weights: Tensor, g: Tensor, dx: Tensor, dweights: Tensor | None
) -> int:
    """`g L1(x, p)` into dx and `A0(x, g)` into dweights; elements outside add nothing and get 0."""
    call = _call(code, basis, x, weights)
    outside = code.code.nasact_backward(ctypes.byref(call), _at(x), _at(g), _at(weights), _at(dx), _at(dweights))
    return int(outside)


def second(
    code: Library,
    basis: Basis,
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
    call = _call(code, basis, x, weights)
    pointers = (_at(tensor) for tensor in (x, g, a, weights, c, dg, dx, dweights))
    return int(code.code.nasact_second(ctypes.byref(call), *pointers))


def _at(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _call(code: Library, basis: Basis, x: Tensor, weights: Tensor) -> _Call:
    grid = basis.grid
    outer, rows, inner = x.shape
    # Mixing K tables for a row, and meeting them again, costs about as much as one element a cell.
    direct = outer * inner < grid.cells and len(basis.names) <= WIDEST
    call = _Call(
        outer,
        rows,
        inner,
        len(basis.names),
        grid.below,
        grid.cells,
        1 / grid.step,
        -grid.below,
        grid.above,
        code.threads(x.numel()),
        x.dtype == torch.bfloat16,
        direct,
    )
    for order in range(3):
        call.basis[order] = basis.coefficients[order].data_ptr()
        call.packed[order] = basis.packed[order].data_ptr()
    return call
