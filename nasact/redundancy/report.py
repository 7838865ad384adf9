"""Everything that a person or a program is told of a bank's redundancy, as one plain document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nasact.redundancy.inspection import INPUT_SCALE, TOLERANCE, SiteBank
from nasact.redundancy.principles import principles
from nasact.redundancy.reduction import DROPS, LEAST, Reduction, reduced


def redundancy_report(
    space: Sequence[str],
    banks: Mapping[str, SiteBank],
    *,
    drop: str = "none",
    tolerance: float = TOLERANCE,
    input_scale: float = INPUT_SCALE,
    least: int = LEAST,
    protected: Iterable[str] = (),
) -> dict[str, Any]:
    """`sites`, the three `principles`, what each way to drop would leave (`reductions`), and what to do `next`."""
    stay = tuple(protected)
    reductions = {
        way: reduced(space, banks, drop=way, tolerance=tolerance, least=least, protected=stay) for way in DROPS[1:]
    }
    return {
        "drop": drop,
        "tolerance": tolerance,
        "input_scale": input_scale,
        "sites": [bank.to_dict() for bank in banks.values()],
        "principles": [principle.to_dict() for principle in principles(banks)],
        "reductions": {way: reduction.to_dict() for way, reduction in reductions.items()},
        "next": _next(banks, drop, input_scale, reductions),
    }


def _next(banks: Mapping[str, SiteBank], drop: str, input_scale: float, reductions: Mapping[str, Reduction]) -> str:
    """One line."""
    if drop != "none":
        return str(reductions[drop]) or f"`redundancy: {{drop: {drop}}}` leaves out nothing"
    also = f" (also at inputs {input_scale:g} times as wide)" if input_scale > 1 else ""
    aliases, dependent = (reductions[way].dropped for way in DROPS[1:])
    if aliases:
        return (
            f"every site has {_and(aliases)} twice{also}: `redundancy: {{drop: aliases}}` in the study leaves that out"
        )
    if dependent:
        return (
            f"at every site others together make up {_and(dependent)}{also}: `redundancy: {{drop: dependent}}` in the "
            "study leaves that out; but a site that keeps one function can then no longer choose it"
        )
    if any(bank.redundant for bank in banks.values()):
        return f"no candidate that may go is redundant at every site{also}: nothing to do"
    return "nothing is redundant"


def _and(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
