"""The cost of the table's two passes in other backends: the same cells in C++, torch.compile and numba.

Usage: python benchmarks/table_backends.py [--quick] [--json FILE]. numba is left out if it is not installed. K = 13 at
layer level: forward (y), then backward (dx and the gradient of the weights). The result of each backend is checked.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable

import torch
from command_line import parse_arguments, publish
from machine import inspect_machine
from mixture_cases import ALL, SHAPE, SMALL_SHAPE
from result_tables import Group, Results, Row
from timing import interleaved
from torch import Tensor

from nasact.mixture import Bank, Layout
from nasact.mixture.table.basis import Grid, basis

GRID = Grid()
BELOW, ABOVE, SCALE = GRID.below, GRID.above, 1 / GRID.step

Pass = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""x (N,), p (K,), g (N,) -> y, dx, dp."""


def native() -> Pass:
    bank = Bank(ALL, Layout(), kernel="table")

    def run(x: Tensor, p: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, p = x.detach().requires_grad_(), p.detach().requires_grad_()
        y = bank(x, p)
        return y.detach(), *torch.autograd.grad(y, (x, p), g)

    return run


def with_torch_compile() -> Pass:
    value, slope, _ = basis(GRID, ALL).coefficients

    def locate(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        u = x * SCALE
        inside = (u > -BELOW) & (u < ABOVE)
        u = torch.where(inside, u, 0.0)
        whole = u.to(torch.int32)
        return whole + BELOW + torch.sign(u).to(torch.int32), u - whole, inside

    def look_up(table: Tensor, cell: Tensor, t: Tensor) -> Tensor:
        c0, c1, c2, c3 = (table[:, power][cell] for power in range(4))
        return c0 + t * (c1 + t * (c2 + t * c3))

    @torch.compile(fullgraph=True, dynamic=False)
    def forward(x: Tensor, p: Tensor) -> Tensor:
        cell, t, inside = locate(x)
        return look_up(torch.einsum("k,kcj->cj", p, value), cell, t) * inside

    @torch.compile(fullgraph=True, dynamic=False)
    def backward(x: Tensor, p: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        cell, t, inside = locate(x)
        g = g * inside
        moments = [torch.zeros(GRID.cells).index_add(0, cell, g * t**power) for power in range(4)]
        dp = torch.einsum("cj,kcj->k", torch.stack(moments, 1), value)
        return g * look_up(torch.einsum("k,kcj->cj", p, slope), cell, t), dp

    return lambda x, p, g: (forward(x, p), *backward(x, p, g))


def with_numba(threads: int) -> Pass:
    """The passes in numba. Raises ImportError if numba is not installed."""
    import numba
    import numpy as np

    numba.set_num_threads(threads)
    zero, scale, low, high = np.float32(0), np.float32(SCALE), np.float32(-BELOW), np.float32(ABOVE)
    below, numbers, block = BELOW, 4 * GRID.cells, 1 << 15
    value, slope, _ = (each.numpy() for each in basis(GRID, ALL).coefficients)
    # unsigned indices: numba tests a signed one for a negative value, and then does not vectorise the loop
    n0, n1, n2, n3 = map(np.uint32, range(4))
    maths = {"contract", "reassoc", "nsz", "nnan", "ninf", "arcp"}

    @numba.njit(parallel=True, fastmath=maths)
    def forward(x, c, y):
        for i in numba.prange(x.size):
            u = x[i] * scale
            inside = (u > low) and (u < high)
            u = u if inside else zero
            whole = np.int32(u)
            t = u - np.float32(whole)
            k = np.uint32(4) * np.uint32(below + whole + np.int32(u > 0) - np.int32(u < 0))
            found = c[k] + t * (c[k + n1] + t * (c[k + n2] + t * c[k + n3]))
            y[i] = found if inside else zero

    @numba.njit(parallel=True, fastmath=maths)
    def backward(x, g, c, dx, totals):
        parts = totals.shape[0]
        each = (x.size + parts - 1) // parts
        for part in numba.prange(parts):
            m = np.zeros(numbers, np.float32)
            last = min(x.size, (part + 1) * each)
            for start in range(part * each, last, block):
                m[:] = zero
                for i in range(start, min(start + block, last)):
                    u = x[i] * scale
                    inside = (u > low) and (u < high)
                    u, gi = (u, g[i]) if inside else (zero, zero)
                    whole = np.int32(u)
                    t = u - np.float32(whole)
                    k = np.uint32(4) * np.uint32(below + whole + np.int32(u > 0) - np.int32(u < 0))
                    dx[i] = gi * (c[k] + t * (c[k + n1] + t * (c[k + n2] + t * c[k + n3])))
                    m[k + n0] += gi
                    m[k + n1] += gi * t
                    m[k + n2] += gi * (t * t)
                    m[k + n3] += gi * (t * t * t)
                for j in range(numbers):
                    totals[part, j] += m[j]

    def run(x: Tensor, p: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, dx = torch.empty_like(x), torch.empty_like(x)
        totals = np.zeros((threads, numbers))
        weights = p.numpy()
        forward(x.numpy(), np.tensordot(weights, value, 1).ravel(), y.numpy())
        backward(x.numpy(), g.numpy(), np.tensordot(weights, slope, 1).ravel(), dx.numpy(), totals)
        dp = value.reshape(len(weights), -1) @ totals.sum(0)
        return y, dx, torch.from_numpy(dp).float()

    return run


def main() -> None:
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache  # an empty cache: the first call compiles
        measure()


def measure() -> None:
    args = parse_arguments(__doc__)
    machine = inspect_machine()
    torch.manual_seed(0)
    x, g = (torch.randn(SMALL_SHAPE if args.quick else SHAPE).flatten() for _ in range(2))
    p = torch.softmax(torch.randn(len(ALL)), 0)
    backends: dict[str, Pass] = {"C++": native()}
    if not args.quick:
        backends["torch.compile"] = with_torch_compile()
    try:
        backends["numba"] = with_numba(args.threads)
    except ImportError:
        print("numba is not installed: its rows are left out")
    truth, rows = backends["C++"](x, p, g), []
    for name, backend in backends.items():
        start = time.perf_counter()
        got = backend(x, p, g)
        seconds = time.perf_counter() - start
        for one, other in zip(got, truth, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))
        if name != "C++":  # its first call is measured by first_call.py
            rows.append(Row(what=f"{name}: first call, no cache", value=seconds, low=seconds, high=seconds, unit="s"))
    cases = {name: (lambda backend=backend: backend(x, p, g)) for name, backend in backends.items()}
    cases["tanh"] = lambda: (y := torch.tanh(x), torch.ops.aten.tanh_backward(g, y))
    times = interleaved(cases, rounds=2 if args.quick else 25, least=0 if args.quick else 0.02)
    rows = [Row.ratio(f"{name} / C++", times, name, "C++") for name in backends if name != "C++"] + rows
    rows.append(Row.ratio("C++ / one tanh", times, "C++", "tanh"))
    title = "The table's two passes in other tools, K=13, layer level; C++ with what autograd costs"
    publish(Results("table_backends", machine, (Group(title, tuple(rows)),), args.quick), args.json)


if __name__ == "__main__":
    main()
