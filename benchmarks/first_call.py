"""The cost of the first call in a new process: from building a bank of 13 functions to its first gradients.

Usage: python benchmarks/first_call.py [--quick] [--json FILE]. The import of torch is not counted; the import of
nasact.mixture is a separate row. A fresh machine is simulated by an empty NASACT_CACHE_DIR; `--quick` leaves this
part out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

from command_line import parse_arguments, publish
from machine import inspect_machine
from result_tables import Group, Results, Row
from timing import Spread

PROCESS = """
import json, sys, time
import torch
threads, *shape = map(int, sys.argv[1:])
torch.set_num_threads(threads)
x = torch.randn(shape).requires_grad_()
clock = time.perf_counter
start = clock()
torch.tanh(x).sum().backward()
tanh = clock()
from nasact.mixture import Bank, Layout
imported = clock()
names = ("relu tanh sigmoid identity silu softsign softplus selu hard_sigmoid gelu elu sin cos").split()
weights = torch.full((13,), 1 / 13).requires_grad_()
bank = Bank(names, Layout(), kernel="table")
built = clock()
torch.autograd.grad(bank(x, weights).sum(), (x, weights))
called = clock()
torch.autograd.grad(bank(x, weights).sum(), (x, weights))
again = clock()
found = {"tanh": tanh - start, "import": imported - tanh, "bank": built - imported, "call": called - built}
print(json.dumps({**found, "first": called - imported, "again": again - called}))
"""


WARM = 3
"""Processes with a warm cache for each one with an empty cache."""


def time_process(threads: int, shape: tuple[int, ...], cache: str | None = None) -> dict[str, float]:
    """Return the seconds of each part in a new process; without `cache` it uses the user's cache."""
    command = [sys.executable, "-c", PROCESS, str(threads), *map(str, shape)]
    environment = {**os.environ, **({} if cache is None else {"NASACT_CACHE_DIR": cache})}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    seconds: dict[str, float] = json.loads(done.stdout)
    return seconds


def main() -> None:
    args = parse_arguments(__doc__)
    machine = inspect_machine()
    cold: list[dict[str, float]] = []
    warm: list[dict[str, float]] = []
    if args.quick:
        warm.append(time_process(args.threads, (4, 8, 15, 15)))
    else:
        for _ in range(3):
            with tempfile.TemporaryDirectory() as cache:
                cold.append(time_process(args.threads, (64, 32, 30, 30), cache))
                warm += [time_process(args.threads, (64, 32, 30, 30), cache) for _ in range(WARM)]

    def row(what: str, runs: list[dict[str, float]], part: str, *targets: float) -> Row:
        at_most, stretch = targets or (None, None)
        spread = Spread.of([run[part] for run in runs])
        return Row.of(what, spread, unit="s", at_most=at_most, stretch=stretch)

    rows = [row("first call, warm cache", warm, "first", 0.5, 0.1)]
    if cold:
        rows.append(row("first call, fresh machine", cold, "first", 15.0, 5.0))
    rows += [
        row("warm: building the bank", warm, "bank"),
        row("warm: forward and backward", warm, "call"),
        row("warm: the same once more", warm, "again"),
        row("import nasact.mixture", warm, "import"),
        row("one tanh, its first call", warm, "tanh"),
    ]
    title = f"First calls, K=13, {len(warm)} processes with a warm cache, {len(cold)} with an empty one"
    publish(Results("first_call", machine, (Group(title, tuple(rows)),), args.quick), args.json)


if __name__ == "__main__":
    main()
