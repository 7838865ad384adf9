"""The bank of every site under the inputs that the site sees: conditioning, rank, who is made up by whom."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from nasact import activations
from nasact.mixture import ORIGINAL
from nasact.redundancy.inputs import SiteInputs, outputs, site_inputs
from nasact.redundancy.linear_dependence import EXACT, Columns, Redundant, condition, condition_centred, rank
from nasact.supernet import Supernet

TOLERANCE = 0.01
"""Residual, relative to a function's own variation, up to which others make it up."""
INPUT_SCALE = 8.0
"""How many times wider the inputs of a site are taken to become in training."""
ENOUGH = 4
"""Values a candidate that a site must see before anything is said of its bank."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SiteBank:
    """The bank of one site. `columns` is None, and `silent` says why, where the inputs tell nothing.

    `condition` is that of the candidates as they are, `condition_centred` without their means; `rank` of the centred
    ones; inf where some are exactly dependent. `redundant`: those that others before them in `retention_order` make up.
    `wider`: the candidates at inputs some times as wide, as training makes them. `ranges`: smallest and largest value
    by candidate; `overflows`: candidates that are not finite at some finite input.
    """

    site: str
    original_function: str
    names: tuple[str, ...]
    inputs: SiteInputs
    columns: Columns | None = None
    wider: Columns | None = None
    silent: str = ""
    condition: float = math.nan
    condition_centred: float = math.nan
    rank: int = 0
    redundant: tuple[Redundant, ...] = ()
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    overflows: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: what is infinite or unknown is None."""
        return {
            "site": self.site,
            "calls": self.inputs.calls,
            "seen": self.inputs.seen,
            "used": 0 if self.columns is None else len(self.columns.F),
            "low": _finite(self.inputs.low),
            "high": _finite(self.inputs.high),
            "silent": self.silent,
            "candidates": list(self.names),
            "condition": _finite(self.condition),
            "condition_centred": _finite(self.condition_centred),
            "rank": None if self.columns is None else self.rank,
            "redundant": [each.to_dict() for each in self.redundant],
            "ranges": {name: list(ends) for name, ends in self.ranges.items()},
            "overflows": list(self.overflows),
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def retention_order(names: Sequence[str], protected: Iterable[str] = ()) -> tuple[str, ...]:
    """Who stays when one of several is enough, first of all: the protected ones (the model's own function), then those
    without learnable parameters, then those that are scalar functions, then as the bank has them."""
    kept = {*protected, ORIGINAL}

    def cost(name: str) -> tuple[bool, int, bool]:
        if name == ORIGINAL:
            return False, 0, False
        candidate = activations.get(name)
        return name not in kept, len(candidate.betas), not candidate.elementwise

    return tuple(sorted(names, key=cost))


def inspect_banks(
    supernet: Supernet, x: Tensor | tuple[Any, ...], *, tolerance: float = TOLERANCE, input_scale: float = INPUT_SCALE
) -> dict[str, SiteBank]:
    """Each site's bank under what the site sees when `supernet` runs on `x`; leaves no trace (`site_inputs`).

    With `input_scale` above 1 also at inputs that are so many times as large (`SiteBank.wider`).
    """
    originals = {site.name: site.function for site in supernet.sites}
    mixtures, seen = supernet.mixtures(), site_inputs(supernet, x)
    banks = {}
    for name, mixture in mixtures.items():
        values, F = outputs(mixture.bank, seen[name])
        bank = inspect_site(name, originals[name], mixture.names, seen[name], values, F, tolerance)
        if input_scale > 1 and bank.columns is not None:
            _, F = outputs(mixture.bank, seen[name].scaled(input_scale))
            F = F[F.float().isfinite().all(1)]
            bank = replace(bank, wider=Columns(mixture.names, F) if len(F) >= ENOUGH * len(mixture.names) else None)
        banks[name] = bank
    return banks


def inspect_site(
    site: str, original_function: str, names: Sequence[str], inputs: SiteInputs, x: Tensor, F: Tensor, tolerance: float
) -> SiteBank:
    """One site from its inputs x (n,) and its candidates on them, F (n, K)."""
    names = tuple(names)
    fine = F.float().isfinite()  # what overflows float32 overflows in the search
    F, usable = F[fine.all(1)], x.isfinite()
    overflows = tuple(name for name, ok in zip(names, fine[usable].all(0).tolist(), strict=True) if not ok)
    bank = SiteBank(site=site, original_function=original_function, names=names, inputs=inputs, overflows=overflows)
    if not inputs.reached:
        return replace(bank, silent="the data never reaches it")
    if len(F) < ENOUGH * len(names):
        return replace(bank, silent=f"too few values to tell: {len(F)} for {len(names)} candidates")
    columns = Columns(names, F)
    order = retention_order(names, [original_function])
    ends = zip(names, F.amin(0).tolist(), F.amax(0).tolist(), strict=True)
    return replace(
        bank,
        columns=columns,
        condition=condition(F),
        condition_centred=condition_centred(F),
        rank=rank(F, tolerance),
        redundant=tuple(_made_up(columns, order, tolerance)),
        ranges={name: (low, high) for name, low, high in ends},
    )


def passes(tolerance: float, *, combine: bool = True) -> tuple[tuple[float, bool], ...]:
    """What is looked for, one after the other, as (tolerance, whether several others may combine): what is exact before
    what is near, and one other before several, so that nothing is told as less than it is."""
    exact, near = (EXACT, combine), (tolerance, False)
    return (exact, near, (tolerance, True)) if combine else (exact, near)


def _made_up(columns: Columns, order: Sequence[str], tolerance: float) -> list[Redundant]:
    found: dict[str, Redundant] = {}
    for limit, combine in passes(tolerance):
        kept: list[str] = []
        for name in order:
            redundant = None if name in found else columns.redundant(name, kept, limit, combine=combine)
            if redundant is not None:
                found[name] = redundant
            elif name not in found:
                kept.append(name)
    return [found[name] for name in order if name in found]


def spread_examples(x: Tensor, count: int) -> Tensor:
    """`count` examples of x (N, ...), evenly spread over it: files are often sorted by class."""
    if len(x) <= count:
        return x
    return x[torch.arange(count, device=x.device) * len(x) // count]
