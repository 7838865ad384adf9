"""What the benchmarks say: rows with targets, the machine they ran on, as a table for a terminal, Markdown and JSON.

Knows numbers and their targets; neither nasact nor how a number was measured.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from timing import Spread, Times, ratio

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number and what it should be at most; `seconds`: the medians of what a ratio compares.

    `shown` is how the number is written where a median with its quartiles would not do.
    """

    what: str
    value: float
    low: float
    high: float
    unit: str = ""
    seconds: tuple[float, ...] = ()
    at_most: float | None = None
    stretch: float | None = None
    shown: str = ""

    @classmethod
    def of(cls, what: str, spread: Spread, **rest: Any) -> Row:
        return cls(what=what, value=spread.median, low=spread.low, high=spread.high, **rest)

    @classmethod
    def ratio(cls, what: str, times: Times, above: str, below: str, *targets: float) -> Row:
        """How long `above` takes, in units of `below`; `targets`: at most, stretch."""
        medians = tuple(Spread.of(times[name]).median for name in (above, below))
        at_most, stretch = targets or (None, None)
        return cls.of(what, ratio(times, above, below), seconds=medians, at_most=at_most, stretch=stretch)

    @property
    def verdict(self) -> str:
        if self.at_most is None:
            return ""
        if self.stretch is not None and self.value <= self.stretch:
            return "stretch"
        return "met" if self.value <= self.at_most else "missed"

    @property
    def measured(self) -> str:
        if self.shown:
            return self.shown
        if self.low == self.high:
            return number(self.value, self.unit)
        ends = sorted((self.low, self.high), reverse=self._as_fraction)
        middle, *ends = (number(value, self.unit, self._as_fraction) for value in (self.value, *ends))
        low, high = (end.removeprefix("1/").removesuffix(f" {self.unit}") for end in ends)
        return f"{middle} ({low}-{high})"

    @property
    def compared(self) -> str:
        """The two times behind a ratio."""
        if not self.seconds:
            return ""
        scale, unit = (1e3, "ms") if max(self.seconds) >= 1e-3 else (1e6, "us")
        return " / ".join(number(scale * value) for value in self.seconds) + f" {unit}"

    @property
    def targets(self) -> tuple[str, str]:
        return tuple(
            "" if value is None else number(value, self.unit, self._as_fraction)
            for value in (self.at_most, self.stretch)
        )

    @property
    def _as_fraction(self) -> bool:
        target = self.value if self.at_most is None else self.at_most
        return not self.unit and target < 0.7

    @property
    def cells(self) -> tuple[str, ...]:
        return (self.what, self.measured, self.compared, *self.targets, self.verdict)


QUARTILES = "median (quartiles)"


def headers(measured: str = QUARTILES) -> tuple[str, ...]:
    return ("what", measured, "times", "at most", "stretch", "")


def number(value: float, unit: str = "", as_fraction: bool = False) -> str:
    if as_fraction:
        return f"1/{1 / value:.3g}"
    digits = f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    return f"{digits} {unit}".rstrip()


@dataclass(frozen=True)
class Group:
    """Rows that were measured side by side; `measured` is the head of their numbers."""

    title: str
    rows: tuple[Row, ...]
    measured: str = QUARTILES


@dataclass(frozen=True)
class Results:
    """What one script measured, where and when."""

    script: str
    machine: dict[str, str]
    groups: tuple[Group, ...]
    quick: bool = False

    @classmethod
    def read(cls, path: Path) -> Results:
        document = json.loads(path.read_text())
        groups = [
            Group(group["title"], tuple(Row(**row) for row in group["rows"]), group["measured"])
            for group in document["groups"]
        ]
        return cls(document["script"], document["machine"], tuple(groups), document["quick"])

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    def text(self) -> str:
        """For a terminal of 100 columns."""
        lines = [describe(self.machine)]
        for group in self.groups:
            columns = _columns(group.rows, group.measured)
            widths = [max(map(len, column)) for column in columns]
            head, *body = (_line(cells, widths) for cells in zip(*columns, strict=True))
            lines += ["", group.title, head, _line(["-" * width for width in widths], widths), *body]
        return "\n".join(lines)


def _line(cells: Iterable[str], widths: list[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _columns(rows: Iterable[Row], measured: str) -> list[tuple[str, ...]]:
    """Head and cells of every column that holds something."""
    columns = zip(headers(measured), *(row.cells for row in rows), strict=True)
    return [column for column in columns if any(column[1:])]


def markdown(rows: Iterable[Row], measured: str = QUARTILES) -> str:
    """As a table without the columns that hold nothing."""
    columns = _columns(rows, measured)
    head, *body = ("| " + " | ".join(cells) + " |" for cells in zip(*columns, strict=True))
    return "\n".join([head, "|" + "---|" * len(columns), *body])


# ---- the machine ------------------------------------------------------------------------------------------------


QUIET = 10
"""Per cent of all cores that others may use without spoiling a measurement."""


def machine() -> dict[str, str]:
    """What the numbers depend on. Call it before measuring: the load is that of the others."""
    return {
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "compiler": _compiler(),
        "date": datetime.date.today().isoformat(),
        "load before": f"{os.getloadavg()[0]:.2f}",
        "busy before": f"{100 * _busy():.0f} %",
    }


def describe(found: dict[str, str]) -> str:
    told = {"cpu", "cores", "threads", "date", "load before", "busy before"}
    others = ", ".join(f"{key} {value}" for key, value in found.items() if key not in told)
    disturbed = float(found["busy before"].removesuffix(" %")) > QUIET
    return (
        f"{found['date']}: {found['cpu']}, {found['cores']} cores, {found['threads']} threads; before: load average "
        f"{found['load before']}, busy {found['busy before']}{': NOT A QUIET MACHINE' if disturbed else ''}\n{others}"
    )


def _busy(seconds: float = 0.5) -> float:
    """The share of all cores that is not idle now; 0 where the system does not tell."""

    def ticks() -> tuple[int, int]:
        told = [int(word) for word in Path("/proc/stat").read_text().partition("\n")[0].split()[1:]]
        return sum(told), told[3] + told[4]

    try:
        (total, idle), _, (total_after, idle_after) = ticks(), time.sleep(seconds), ticks()
    except OSError:
        return 0.0
    return 1 - (idle_after - idle) / max(1, total_after - total)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    told = dict(tuple(part.strip() for part in line.split(":", 1)) for line in lines if ":" in line)
    numbers = "".join(f", {key} {told[key]}" for key in ("cpu family", "model") if key in told)
    return told.get("model name", platform.machine()) + numbers


def _compiler() -> str:
    program = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), None)
    if program is None:
        return "none"
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0]


# ---- the command line -------------------------------------------------------------------------------------------


def arguments(description: str | None, **defaults: Any) -> argparse.Namespace:
    """`--quick`, `--json FILE`, `--threads N`; and what `defaults` names, with its default."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small inputs, few rounds, no torch.compile: a smoke test")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to FILE")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (2)")
    for name, default in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    return given


def publish(results: Results, path: Path | None) -> None:
    sys.stdout.write(results.text() + "\n\n")
    if path is not None:
        results.write(path)
