"""Search domains: what a study may hold in place of a scalar, and what the outer loop samples from.

`{low, high, log, step, points}` is a range, `{choice: [...]}` one of several values, `{subset: [...], min: n}` any n or
more of a list. Must not know samplers, nor what the value is used for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nasact.errors import did_you_mean
from nasact.study.shorthand import Path

Scalar = str | int | float | bool

_RANGE_KEYS = ("low", "high", "log", "step", "points")
_SHAPES: dict[str, tuple[str, ...]] = {"choice": ("choice",), "subset": ("subset", "min")}


class DomainError(ValueError):
    """A domain that is not valid; the caller knows its place."""


@dataclass(frozen=True, kw_only=True)
class FloatRange:
    """Real numbers from `low` to `high`; `points` evenly spaced ones (in the logarithm, if `log`) make its grid."""

    low: float
    high: float
    log: bool = False
    points: int | None = None

    def grid(self) -> tuple[float, ...] | None:
        """The values of a grid sampler; None if `points` was not given."""
        if self.low == self.high:
            return (self.low,)
        if self.points is None:
            return None
        inner = (self.at(index / (self.points - 1)) for index in range(1, self.points - 1))
        return (self.low, *inner, self.high)

    def at(self, fraction: float) -> float:
        """The value at a fraction of the range, from low (0) to high (1)."""
        if self.log:
            value = math.exp(math.log(self.low) + fraction * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + fraction * (self.high - self.low)
        return min(max(value, self.low), self.high)  # exp and log round, possibly out of the range

    def representative(self) -> float:
        return self.at(0.5)

    def extremes(self) -> tuple[float, ...]:
        return (self.low, self.high)

    def contains(self, value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def node(self) -> dict[str, Any]:
        node: dict[str, Any] = {"low": self.low, "high": self.high}
        return node | ({"log": True} if self.log else {}) | ({"points": self.points} if self.points else {})


@dataclass(frozen=True, kw_only=True)
class IntRange:
    """Whole numbers `low, low + step, ..., high`."""

    low: int
    high: int
    log: bool = False
    step: int = 1

    def grid(self) -> Sequence[int]:
        return range(self.low, self.high + 1, self.step)

    def representative(self) -> int:
        if self.log:
            return round(math.sqrt(self.low * self.high))
        return self.low + self.step * ((self.high - self.low) // self.step // 2)

    def extremes(self) -> tuple[int, ...]:
        return (self.low, self.high)

    def contains(self, value: Any) -> bool:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and self.low <= value <= self.high and (value - self.low) % self.step == 0

    def node(self) -> dict[str, Any]:
        node: dict[str, Any] = {"low": self.low, "high": self.high}
        return node | ({"log": True} if self.log else {}) | ({"step": self.step} if self.step != 1 else {})


@dataclass(frozen=True)
class Choice:
    """One of a few scalars."""

    choices: tuple[Scalar, ...]

    def grid(self) -> tuple[Scalar, ...]:
        return self.choices

    def representative(self) -> Scalar:
        return self.choices[0]

    def extremes(self) -> tuple[Scalar, ...]:
        return self.choices

    def contains(self, value: Any) -> bool:
        return any(type(value) is type(choice) and value == choice for choice in self.choices)

    def node(self) -> dict[str, Any]:
        return {"choice": list(self.choices)}


@dataclass(frozen=True)
class Subset:
    """Any `minimum` or more of the items, in their order. The outer loop has one true/false parameter per item."""

    items: tuple[Scalar, ...]
    minimum: int = 1

    def representative(self) -> list[Scalar]:
        return list(self.items)

    def extremes(self) -> tuple[list[Scalar], ...]:
        """The whole set, and the smallest sets that can be drawn: each item must be valid in one of them."""
        return (list(self.items), *(self.selected({index}) for index in range(len(self.items))))

    def selected(self, on: set[int]) -> list[Scalar]:
        """The items that are switched on; if there are fewer than `minimum`, the first items that are off are added."""
        off = (index for index in range(len(self.items)) if index not in on)
        while len(on) < self.minimum:
            on = on | {next(off)}
        return [item for index, item in enumerate(self.items) if index in on]

    def node(self) -> dict[str, Any]:
        return {"subset": list(self.items), "min": self.minimum}


Parameter = FloatRange | IntRange | Choice
Domain = FloatRange | IntRange | Choice | Subset


def is_domain(value: Any) -> bool:
    """Whether a mapping is meant as a domain: it has a key of a domain and, unlike a component, no name."""
    return isinstance(value, dict) and "name" not in value and any(key in value for key in ("low", "high", *_SHAPES))


def parse(node: dict[str, Any]) -> Domain:
    """The domain that a mapping describes. Whole ends make an IntRange; `as_floats` is for fields that hold floats."""
    kind = next((shape for shape in _SHAPES if shape in node), None)
    allowed = _RANGE_KEYS if kind is None else _SHAPES[kind]
    for key in node:
        if key not in allowed:
            hint = did_you_mean(key, allowed) or f" A domain holds {_listed(allowed)}."
            raise DomainError(f"unknown key {key!r} in a domain.{hint}")
    if kind is None:
        return _range(node)
    items = _scalars(kind, node[kind])
    return Choice(items) if kind == "choice" else Subset(items, _minimum(node.get("min", 1), len(items)))


def as_floats(domain: Domain) -> Domain:
    """The same range over real numbers, for a field that holds a float."""
    if not isinstance(domain, IntRange):
        return domain
    if domain.step != 1:
        raise DomainError("`step` is for whole numbers: give `points: n` for n values of a float")
    return FloatRange(low=float(domain.low), high=float(domain.high), log=domain.log)


def _range(node: dict[str, Any]) -> FloatRange | IntRange:
    for key in ("low", "high"):
        if key not in node:
            raise DomainError(f"a range needs `low` and `high`, but `{key}` is missing")
        if isinstance(node[key], bool) or not isinstance(node[key], int | float):
            raise DomainError(f"`{key}` must be a number, but got {node[key]!r}")
    low, high, log = node["low"], node["high"], node.get("log", False)
    if not isinstance(log, bool):
        raise DomainError(f"`log` must be true or false, but got {log!r}")
    if not low <= high:
        raise DomainError(f"`low <= high` must hold, but got (low={low}, high={high}).")
    if log and not low > 0:
        raise DomainError(f"`low > 0` must hold on a logarithmic scale, but got (low={low}, high={high}).")
    step, points = node.get("step"), node.get("points")
    if points is not None:
        if step is not None:
            raise DomainError("give `step` (whole numbers) or `points` (floats), not both")
        if isinstance(points, bool) or not isinstance(points, int) or points < 2:
            raise DomainError(f"`points` must be a whole number of at least 2, but got {points!r}")
        return FloatRange(low=float(low), high=float(high), log=log, points=points)
    if isinstance(low, int) and isinstance(high, int):
        return IntRange(low=low, high=high, log=log, step=_step(step, low, high, log))
    if step is not None:
        raise DomainError("`step` is for whole numbers: give `points: n` for n values of a float")
    return FloatRange(low=float(low), high=float(high), log=log)


def _step(step: Any, low: int, high: int, log: bool) -> int:
    if step is None:
        return 1
    if isinstance(step, bool) or not isinstance(step, int) or step < 1:
        raise DomainError(f"`step` must be a whole number of at least 1, but got {step!r}")
    if log and step != 1:
        raise DomainError("give `step` or `log`, not both")
    if (high - low) % step:
        raise DomainError(f"`step` must lead from low to high, but got (low={low}, high={high}, step={step}).")
    return step


def _scalars(kind: str, items: Any) -> tuple[Scalar, ...]:
    if not isinstance(items, Sequence) or isinstance(items, str):
        raise DomainError(f"`{kind}` must be a list, but got {items!r}")
    if not items:
        raise DomainError(f"`{kind}` is empty: give at least one value")
    for index, item in enumerate(items):
        if not isinstance(item, str | int | float | bool):
            raise DomainError(f"`{kind}` holds scalars (text, number, true or false), but got {item!r}")
        if item in items[:index]:
            raise DomainError(f"`{kind}` holds {item!r} twice")
    return tuple(items)


def _minimum(minimum: Any, size: int) -> int:
    if isinstance(minimum, bool) or not isinstance(minimum, int) or minimum < 1:
        raise DomainError(f"`min` must be a whole number of at least 1, but got {minimum!r}")
    if minimum > size:
        raise DomainError(f"`min` must not be larger than the subset, but got (min={minimum}, size={size}).")
    return minimum


def _listed(names: Sequence[str]) -> str:
    return " or ".join(f"`{name}`" for name in names) if len(names) < 3 else ", ".join(f"`{name}`" for name in names)


def walk(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value of a tree that is not a mapping or a list, with its path."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from walk(value, (*path, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from walk(value, (*path, index))
    else:
        yield path, tree


def put(tree: Any, path: Path, value: Any) -> Any:
    """A copy of the tree with `value` at `path`."""
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(tree, list) and isinstance(head, int):
        return [put(entry, rest, value) if index == head else entry for index, entry in enumerate(tree)]
    return {**tree, head: put(tree.get(head), rest, value)}
