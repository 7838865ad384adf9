"""Paper 003's three principles for the functions of one mixture, checked and reported; none of them is an error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nasact import activations
from nasact.mixture import ORIGINAL
from nasact.redundancy.inspection import SiteBank


@dataclass(frozen=True, kw_only=True)
class Principle:
    """One principle: whether the bank keeps it (None: the data did not tell), and what was found."""

    name: str
    holds: bool | None
    found: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def principles(banks: Mapping[str, SiteBank]) -> tuple[Principle, ...]:
    """Same domain, same range, expressive independence ("Combined Flexible Activation Functions", section 2).

    Domain: functions that couple features take vectors, not numbers; functions that are not finite at an input that a
    site sees are named. Range: that of the model's own function, by the catalogue's records (a learnable one at its
    initial parameters; what the catalogue does not hold, by its values at the site). Independence: by the rank at each
    site; the paper also lets a function's input be scaled and shifted, which this does not.
    """
    return _domain(banks), _range(banks), _independence(banks)


def _domain(banks: Mapping[str, SiteBank]) -> Principle:
    names = _names(banks)
    coupled = [name for name in names if name != ORIGINAL and not activations.get(name).elementwise]
    overflow = [name for name in names if any(name in bank.overflows for bank in banks.values())]
    found = [f"{name} takes all features at once" for name in coupled]
    found += [f"{name} is not finite at some inputs" for name in overflow]
    return Principle(name="same domain", holds=not found, found="; ".join(found) or "all take any number")


def _range(banks: Mapping[str, SiteBank]) -> Principle:
    found, same = [], True
    for own in dict.fromkeys(bank.original_function for bank in banks.values()):
        group = [bank for bank in banks.values() if bank.original_function == own]
        base = _range_of(own, group)
        if base is None:
            return Principle(name="same range", holds=None, found="the data tells nothing of the model's own function")
        others: dict[tuple[float, float], list[str]] = {}
        for name in _names({bank.site: bank for bank in group}):
            ends = _range_of(name, group)
            if ends is not None and ends != base:
                others.setdefault(ends, []).append(name)
        same = same and not others
        told = "; ".join(f"{', '.join(names)} {_interval(ends)}" for ends, names in others.items())
        found.append(f"{own} has {_interval(base)}" + (f", but {told}" if told else ", and so have all"))
    return Principle(name="same range", holds=same, found="; ".join(found))


def _range_of(name: str, group: Sequence[SiteBank]) -> tuple[float, float] | None:
    if name != ORIGINAL:
        return activations.get(name).range
    ends = [bank.ranges[name] for bank in group if name in bank.ranges]
    return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else None


def _interval(ends: tuple[float, float]) -> str:
    low, high = ends
    left = "(-inf" if low == -math.inf else f"[{low:.3g}"
    right = "inf)" if high == math.inf else f"{high:.3g}]"
    return f"{left}, {right}"


def _independence(banks: Mapping[str, SiteBank]) -> Principle:
    telling = [bank for bank in banks.values() if bank.columns is not None]
    if not telling:
        return Principle(name="independence", holds=None, found="no site tells anything")
    least = min(telling, key=lambda bank: bank.rank - len(bank.names))
    holds = all(bank.rank == len(bank.names) for bank in telling)
    text = f"rank {least.rank} of {len(least.names)} at {least.site}"
    return Principle(name="independence", holds=holds, found=("full rank at every site" if holds else text))


def _names(banks: Mapping[str, SiteBank]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for bank in banks.values() for name in bank.names))
