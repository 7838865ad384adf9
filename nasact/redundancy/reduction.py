"""Dropping redundant candidates: the search space of a study is reduced before its search, if the study asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from nasact.errors import MixtureError, did_you_mean
from nasact.redundancy.inspection import (
    DEFAULT_INPUT_SCALE,
    DEFAULT_TOLERANCE,
    SiteBank,
    evenly_spaced_examples,
    inspect_banks,
    retention_order,
    tolerance_passes,
)
from nasact.redundancy.linear_dependence import Dependence
from nasact.supernet import Supernet

DROPS = ("none", "aliases", "dependent")
"""Which candidates are dropped: none; those that one other replaces at every site; also those that several replace."""
INSPECTED_EXAMPLES = 128
"""The number of training examples that banks are inspected on."""
MIN_CANDIDATES = 2
"""A mixture of one function leaves nothing to search."""


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """The result of `reduce_candidates`.

    `kept`: the remaining candidates, in the order of the bank. `dropped`: for each dropped candidate, its dependence on
    the remaining ones at each site. `refused`: redundant candidates that are kept, with the reason.
    """

    kept: tuple[str, ...]
    dropped: Mapping[str, Mapping[str, Dependence]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line; empty if no candidate is dropped or refused."""
        parts = [f"{len(self.kept)} of {len(self.kept) + len(self.dropped)} candidates are searched"]
        for name, sites in self.dropped.items():
            first, text = next((site, str(dependence)) for site, dependence in sites.items())
            where = "" if len({str(dependence) for dependence in sites.values()}) == 1 else f" at {first}"
            parts.append(f"without {name}: {text}{where}")
        parts += [f"{name} is kept: {reason}" for name, reason in self.refused.items()]
        return "; ".join(parts) if self.dropped or self.refused else ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "kept": list(self.kept),
            "dropped": {
                name: {site: dependence.to_dict() for site, dependence in sites.items()}
                for name, sites in self.dropped.items()
            },
            "refused": dict(self.refused),
        }


def reduce_candidates(
    space: Sequence[str],
    banks: Mapping[str, SiteBank],
    *,
    drop: str,
    tolerance: float = DEFAULT_TOLERANCE,
    min_candidates: int = MIN_CANDIDATES,
    protected: Iterable[str] = (),
) -> Reduction:
    """`space` without the candidates that depend on the others within `tolerance` at EVERY inspected site.

    At each site the dependence must hold on its inputs and, if the bank has `scaled_columns`, on the enlarged inputs.

    drop="aliases": a candidate is dropped if at each site it is constant or another one scaled and shifted, not
    necessarily the same one at each site. drop="dependent": also if it is a combination of several others. Candidates
    are compared with the remaining ones before them in `retention_order`, in the passes of `tolerance_passes`.

    The model's own functions and those in `protected` are never dropped. At least max(`min_candidates`, 2) candidates
    remain: the first dropped ones in `retention_order` are kept again, and are in `refused`.
    """
    if drop not in DROPS:
        raise MixtureError(f"unknown drop {drop!r}: expected one of {', '.join(DROPS)}.{did_you_mean(drop, DROPS)}")
    inspected = {site: bank for site, bank in banks.items() if bank.columns is not None}
    protected = {*protected, *(bank.original_function for bank in banks.values())}
    if drop == "none" or not inspected:
        return Reduction(kept=tuple(space))
    order = retention_order(space, protected)
    dropped: dict[str, dict[str, Dependence]] = {}
    for limit, combine in tolerance_passes(tolerance, combine=drop == "dependent"):
        remaining: list[str] = []
        for name in order:
            if name in dropped:
                continue
            dependences = (
                None if name in protected else _dependence_by_site(name, remaining, space, inspected, limit, combine)
            )
            if dependences is None:
                remaining.append(name)
            else:
                dropped[name] = dependences
    refused = {}
    least = min(max(MIN_CANDIDATES, min_candidates), len(space))
    for name in [name for name in order if name in dropped][: max(0, least - len(remaining))]:
        refused[name] = f"at least {least} candidates must remain"
        del dropped[name]
    return Reduction(kept=tuple(name for name in space if name not in dropped), dropped=dropped, refused=refused)


def _dependence_by_site(
    name: str,
    remaining: Sequence[str],
    space: Sequence[str],
    banks: Mapping[str, SiteBank],
    tolerance: float,
    combine: bool,
) -> dict[str, Dependence] | None:
    """The dependence of `name` on the remaining candidates at each site; None if there is a site without one."""
    dependences = {}
    for site, bank in banks.items():
        assert bank.columns is not None
        # with init: original the bank of a site also has the model's own function, which is not in the search space
        others = [*remaining, *(added for added in bank.names if added not in space)]
        dependence = bank.columns.find_dependence(name, others, tolerance, combine=combine)
        if dependence is None:
            return None
        scaled = bank.scaled_columns
        if scaled is not None and scaled.find_dependence(name, others, tolerance, combine=combine) is None:
            return None
        dependences[site] = dependence
    return dependences


def prune_redundant(
    relax: Callable[[Sequence[str]], Supernet],
    space: Sequence[str],
    x: Tensor,
    *,
    drop: str,
    tolerance: float = DEFAULT_TOLERANCE,
    input_scale: float = DEFAULT_INPUT_SCALE,
    min_candidates: int = MIN_CANDIDATES,
    protected: Iterable[str] = (),
    log: Callable[[str], None] | None = None,
) -> Supernet:
    """The supernet that `relax` builds from the candidates that `reduce_candidates` keeps of `space`.

    Banks are inspected on examples of x (N, ...). A function of its arguments only, so that a continued trial drops the
    same candidates. `log` receives one line that names the dropped candidates, and why.
    """
    supernet = relax(space)
    if drop == "none":
        return supernet
    examples = evenly_spaced_examples(x, INSPECTED_EXAMPLES)
    banks = inspect_banks(supernet, examples, tolerance=tolerance, input_scale=input_scale)
    reduction = reduce_candidates(
        space, banks, drop=drop, tolerance=tolerance, min_candidates=min_candidates, protected=protected
    )
    if log is not None and str(reduction):
        log(f"redundancy: {reduction}")
    return relax(reduction.kept) if reduction.dropped else supernet
