"""Three principles of paper 003 for the functions of one mixture. They are checked and reported; none is an error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nasact import activations
from nasact.redundancy.inspection import SiteBank
from nasact.reserved_names import ORIGINAL


@dataclass(frozen=True, kw_only=True)
class Principle:
    """One principle: whether the bank satisfies it (None: the data does not determine it), and what was found."""

    name: str
    holds: bool | None
    found: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_principles(banks: Mapping[str, SiteBank]) -> tuple[Principle, ...]:
    """Same domain, same range, expressive independence ("Combined Flexible Activation Functions", section 2).

    Domain: violated by functions that couple features, which take vectors instead of numbers, and by functions that are
    not finite at an input of a site. Range: compared with the range of the model's own function, both from the
    catalogue (a learnable function at its initial parameters); for a function that is not in the catalogue, from its
    values at the site. Independence: full rank at each site. In the paper the input of a function may also be scaled
    and shifted, which is not considered here.
    """
    return _domain(banks), _range(banks), _independence(banks)


def _domain(banks: Mapping[str, SiteBank]) -> Principle:
    names = _names(banks)
    coupled = [name for name in names if name != ORIGINAL and not activations.get(name).elementwise]
    overflow = [name for name in names if any(name in bank.overflows for bank in banks.values())]
    violations = [f"{name} takes all features at once" for name in coupled]
    violations += [f"{name} is not finite at some inputs" for name in overflow]
    return Principle(name="same domain", holds=not violations, found="; ".join(violations) or "all take any number")


def _range(banks: Mapping[str, SiteBank]) -> Principle:
    found, same = [], True
    for original in dict.fromkeys(bank.original_function for bank in banks.values()):
        group = [bank for bank in banks.values() if bank.original_function == original]
        expected = _range_of(original, group)
        if expected is None:
            reason = "the data does not determine the range of the model's own function"
            return Principle(name="same range", holds=None, found=reason)
        others: dict[tuple[float, float], list[str]] = {}
        for name in _names({bank.site: bank for bank in group}):
            ends = _range_of(name, group)
            if ends is not None and ends != expected:
                others.setdefault(ends, []).append(name)
        same = same and not others
        deviations = "; ".join(f"{', '.join(names)} {_interval(ends)}" for ends, names in others.items())
        found.append(
            f"{original} has {_interval(expected)}" + (f", but {deviations}" if deviations else ", and so have all")
        )
    return Principle(name="same range", holds=same, found="; ".join(found))


def _range_of(name: str, group: Sequence[SiteBank]) -> tuple[float, float] | None:
    """The range in the catalogue; for the model's own function outside the catalogue, that of its values."""
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
    inspected = [bank for bank in banks.values() if bank.columns is not None]
    if not inspected:
        return Principle(name="independence", holds=None, found="no site could be inspected")
    worst = min(inspected, key=lambda bank: bank.rank - len(bank.names))
    holds = all(bank.rank == len(bank.names) for bank in inspected)
    deficit = f"rank {worst.rank} of {len(worst.names)} at {worst.site}"
    return Principle(name="independence", holds=holds, found=("full rank at every site" if holds else deficit))


def _names(banks: Mapping[str, SiteBank]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for bank in banks.values() for name in bank.names))
