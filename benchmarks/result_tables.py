"""The results of a benchmark: rows with targets, in groups, as tables for a terminal, as Markdown and as JSON.

Knows numbers and their targets; knows neither nasact nor how a number was measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from machine import describe_machine
from timing import Spread, Times, ratio

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number with its spread and its targets.

    `low`, `high`: the quartiles, or what else the group's heading says. `seconds`: the two median times of a ratio.
    `at_most`, `stretch`: the target and the harder target, if the row has any. `shown`: the text of the number, where a
    median with its quartiles would not do.
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
        """The time of `above` divided by that of `below`; `targets`: at most, stretch."""
        medians = tuple(Spread.of(times[name]).median for name in (above, below))
        at_most, stretch = targets or (None, None)
        return cls.of(what, ratio(times, above, below), seconds=medians, at_most=at_most, stretch=stretch)

    @property
    def verdict(self) -> str:
        """`stretch`, `met` or `missed`; empty for a row without a target."""
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
        return f"{middle} ({low} to {high})" if self.low < 0 else f"{middle} ({low}-{high})"

    @property
    def compared(self) -> str:
        """The two times of a ratio."""
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
    """Rows that were measured in the same run; `measured` is the heading of their numbers."""

    title: str
    rows: tuple[Row, ...]
    measured: str = QUARTILES


@dataclass(frozen=True)
class Results:
    """What one script measured, where and when.

    `settings` and `cases` are for scripts that can run some of their cases and keep the rows of the others (see
    `merge.py`): the settings that all rows share, and for each case its definition and, if an earlier run measured it,
    its machine.
    """

    script: str
    machine: dict[str, str]
    groups: tuple[Group, ...]
    quick: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    cases: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Results:
        document = json.loads(path.read_text())
        groups = [
            Group(group["title"], tuple(_read_row(row) for row in group["rows"]), group["measured"])
            for group in document["groups"]
        ]
        details = {name: document[name] for name in ("settings", "cases") if name in document}
        return cls(document["script"], document["machine"], tuple(groups), document["quick"], **details)

    def write(self, path: Path) -> None:
        document = asdict(self)
        for name in ("settings", "cases"):
            if not document[name]:
                del document[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n")

    def text(self) -> str:
        """The machine and all groups, for a terminal of 100 columns."""
        lines = [describe_machine(self.machine)]
        for group in self.groups:
            columns = _columns(group.rows, group.measured)
            widths = [max(map(len, column)) for column in columns]
            head, *body = (_line(cells, widths) for cells in zip(*columns, strict=True))
            lines += ["", group.title, head, _line(["-" * width for width in widths], widths), *body]
        return "\n".join(lines)


def _read_row(document: dict[str, Any]) -> Row:
    return Row(**{**document, "seconds": tuple(document["seconds"])})


def _line(cells: Iterable[str], widths: list[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _columns(rows: Iterable[Row], measured: str) -> list[tuple[str, ...]]:
    """The columns, heading first, without those that are empty in every row."""
    columns = zip(headers(measured), *(row.cells for row in rows), strict=True)
    return [column for column in columns if any(column[1:])]


def markdown(rows: Iterable[Row], measured: str = QUARTILES) -> str:
    """The rows as a Markdown table, without the columns that are empty in every row."""
    columns = _columns(rows, measured)
    head, *body = ("| " + " | ".join(cells) + " |" for cells in zip(*columns, strict=True))
    return "\n".join([head, "|" + "---|" * len(columns), *body])
