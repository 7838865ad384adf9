"""Leaving out what every site has twice: the one bank of a study, reduced before its search. Opt-in, and told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from nasact.errors import MixtureError, did_you_mean
from nasact.redundancy.inspection import (
    INPUT_SCALE,
    TOLERANCE,
    SiteBank,
    inspect_banks,
    passes,
    retention_order,
    spread_examples,
)
from nasact.redundancy.linear_dependence import Redundant
from nasact.supernet import Supernet

DROPS = ("none", "aliases", "dependent")
"""What may be left out: nothing; what one other function replaces everywhere; what others together replace too."""
EXAMPLES = 128
"""Training examples of the one batch that banks are judged by."""
LEAST = 2
"""A mixture of one function has nothing to search."""


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """`kept`, in the bank's order; `dropped`: by candidate, how each site has it without it; `refused`: what could go
    but stays, with the reason."""

    kept: tuple[str, ...]
    dropped: Mapping[str, Mapping[str, Redundant]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line; empty where nothing goes and nothing could."""
        parts = [f"{len(self.kept)} of {len(self.kept) + len(self.dropped)} candidates are searched"]
        for name, sites in self.dropped.items():
            first, text = next((site, str(redundant)) for site, redundant in sites.items())
            where = "" if len({str(redundant) for redundant in sites.values()}) == 1 else f" at {first}"
            parts.append(f"without {name}: {text}{where}")
        parts += [f"{name} stays: {reason}" for name, reason in self.refused.items()]
        return "; ".join(parts) if self.dropped or self.refused else ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "kept": list(self.kept),
            "dropped": {
                name: {site: redundant.to_dict() for site, redundant in sites.items()}
                for name, sites in self.dropped.items()
            },
            "refused": dict(self.refused),
        }


def reduced(
    space: Sequence[str],
    banks: Mapping[str, SiteBank],
    *,
    drop: str,
    tolerance: float = TOLERANCE,
    least: int = LEAST,
    protected: Iterable[str] = (),
) -> Reduction:
    """`space` without what the rest of it makes up within `tolerance` at EVERY site that tells something, there under
    the inputs that it sees and, where the banks have them, under wider ones.

    By "aliases" a candidate goes where it is constant or one other scaled and shifted, which need not be the same other
    at each site; by "dependent" also where it is a combination of several. Candidates are gone through in
    `retention_order`, each against those before it that are left; first for what is exact, then for what is near
    (`passes`). The functions that the model itself has, and `protected`, stay. No fewer than max(`least`, 2) stay:
    those that are first in order are then put back, and `refused` says so.
    """
    if drop not in DROPS:
        raise MixtureError(f"unknown drop {drop!r}: expected one of {', '.join(DROPS)}.{did_you_mean(drop, DROPS)}")
    telling = {site: bank for site, bank in banks.items() if bank.columns is not None}
    stay = {*protected, *(bank.original_function for bank in banks.values())}
    if drop == "none" or not telling:
        return Reduction(kept=tuple(space))
    order = retention_order(space, stay)
    dropped: dict[str, dict[str, Redundant]] = {}
    for limit, combine in passes(tolerance, combine=drop == "dependent"):
        kept: list[str] = []
        for name in order:
            if name in dropped:
                continue
            found = None if name in stay else _everywhere(name, kept, space, telling, limit, combine)
            if found is None:
                kept.append(name)
            else:
                dropped[name] = found
    refused = {}
    least = min(max(LEAST, least), len(space))
    for name in [name for name in order if name in dropped][: max(0, least - len(kept))]:
        refused[name] = f"no fewer than {least} candidates may be left"
        del dropped[name]
    return Reduction(kept=tuple(name for name in space if name not in dropped), dropped=dropped, refused=refused)


def _everywhere(
    name: str, kept: Sequence[str], space: Sequence[str], banks: Mapping[str, SiteBank], tolerance: float, combine: bool
) -> dict[str, Redundant] | None:
    found = {}
    for site, bank in banks.items():
        assert bank.columns is not None
        # with init: original the model's own function joins the site's bank, and is kept there
        others = [*kept, *(joined for joined in bank.names if joined not in space)]
        redundant = bank.columns.redundant(name, others, tolerance, combine=combine)
        if redundant is None:
            return None
        if bank.wider is not None and bank.wider.redundant(name, others, tolerance, combine=combine) is None:
            return None
        found[site] = redundant
    return found


def prune_redundant(
    relax: Callable[[Sequence[str]], Supernet],
    space: Sequence[str],
    x: Tensor,
    *,
    drop: str,
    tolerance: float = TOLERANCE,
    input_scale: float = INPUT_SCALE,
    least: int = LEAST,
    protected: Iterable[str] = (),
    tell: Callable[[str], None] | None = None,
) -> Supernet:
    """The supernet that `relax` makes of `space`, or of what `reduced` leaves of it on examples of x (N, ...).

    A function of its arguments alone: a trial that continues leaves out the same. `tell` hears what goes, and why.
    """
    supernet = relax(space)
    if drop == "none":
        return supernet
    banks = inspect_banks(supernet, spread_examples(x, EXAMPLES), tolerance=tolerance, input_scale=input_scale)
    left = reduced(space, banks, drop=drop, tolerance=tolerance, least=least, protected=protected)
    if tell is not None and str(left):
        tell(f"redundancy: {left}")
    return relax(left.kept) if left.dropped else supernet
