"""Timing of cases in turn, round after round, so that a disturbance of the machine affects all cases alike.

Knows clocks and statistics; knows neither nasact nor what is measured.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Case = Callable[[], object]
Times = dict[str, list[float]]
"""For each case, its seconds per call: one number per round."""


def interleaved(cases: Mapping[str, Case], *, rounds: int, warm_up: int = 3, least: float = 0.02) -> Times:
    """Time every case in each of `rounds` rounds: A B C A B C ...

    In each round a case has one untimed call, which brings its data into the caches, and then enough calls to take
    about `least` seconds; their mean is the result of the round.
    """
    calls = {}
    for name, case in cases.items():
        for _ in range(warm_up):
            case()
        calls[name] = max(1, min(1000, round(least / _seconds(case, 1))))
    times: Times = {name: [] for name in cases}
    gc.collect()
    gc.disable()  # as timeit does: a garbage collection is not a cost of the case in which it happens
    try:
        for _ in range(rounds):
            for name, case in cases.items():
                case()
                times[name].append(_seconds(case, calls[name]))
    finally:
        gc.enable()
    return times


def _seconds(case: Case, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        case()
    return (time.perf_counter() - start) / calls


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


def ratio(times: Times, above: str, below: str) -> Spread:
    """The spread of the ratios of all rounds: what slows a whole round cancels out of its ratio."""
    return Spread.of([a / b for a, b in zip(times[above], times[below], strict=True)])
