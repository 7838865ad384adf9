"""The redundancy of a bank as one plain document: for `nasact check` and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nasact.redundancy.inspection import DEFAULT_INPUT_SCALE, DEFAULT_TOLERANCE, SiteBank
from nasact.redundancy.principles import check_principles
from nasact.redundancy.reduction import DROPS, MIN_CANDIDATES, Reduction, reduce_candidates


def redundancy_report(
    space: Sequence[str],
    banks: Mapping[str, SiteBank],
    *,
    drop: str = "none",
    tolerance: float = DEFAULT_TOLERANCE,
    input_scale: float = DEFAULT_INPUT_SCALE,
    min_candidates: int = MIN_CANDIDATES,
    protected: Iterable[str] = (),
) -> dict[str, Any]:
    """`sites`, the three `principles`, the result of each way to drop (`reductions`), and what to do `next`."""
    protected = tuple(protected)
    reductions = {
        way: reduce_candidates(
            space, banks, drop=way, tolerance=tolerance, min_candidates=min_candidates, protected=protected
        )
        for way in DROPS[1:]
    }
    return {
        "drop": drop,
        "tolerance": tolerance,
        "input_scale": input_scale,
        "sites": [bank.to_dict() for bank in banks.values()],
        "principles": [principle.to_dict() for principle in check_principles(banks)],
        "reductions": {way: reduction.to_dict() for way, reduction in reductions.items()},
        "next": _advice(banks, drop, input_scale, reductions),
    }


def _advice(banks: Mapping[str, SiteBank], drop: str, input_scale: float, reductions: Mapping[str, Reduction]) -> str:
    """What the user should do next, in one line."""
    if drop != "none":
        return str(reductions[drop]) or f"`redundancy: {{drop: {drop}}}` drops nothing"
    also = f" (also at inputs {input_scale:g} times as large)" if input_scale > 1 else ""
    aliases, dependent = (reductions[way].dropped for way in DROPS[1:])
    if aliases:
        return (
            f"another candidate replaces {_enumerate(aliases)} at every site{also}: "
            "set `redundancy: {drop: aliases}` in the study to drop what is replaced"
        )
    if dependent:
        return (
            f"several others together replace {_enumerate(dependent)} at every site{also}: "
            "set `redundancy: {drop: dependent}` in the study to drop what is replaced; "
            "a site that keeps one function can then no longer choose it"
        )
    if any(bank.redundant for bank in banks.values()):
        return f"no candidate that could be dropped is redundant at every site{also}: nothing to do"
    return "no candidate is redundant: nothing to do"


def _enumerate(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
