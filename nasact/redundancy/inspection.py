"""The bank of each site on the inputs of the site: conditioning, rank, and candidates that depend on others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from nasact import activations
from nasact.redundancy.inputs import SiteInputs, candidate_outputs, record_site_inputs
from nasact.redundancy.linear_dependence import (
    EXACT_TOLERANCE,
    Columns,
    Dependence,
    centred_condition_number,
    condition_number,
    numerical_rank,
)
from nasact.reserved_names import ORIGINAL
from nasact.supernet import Supernet

DEFAULT_TOLERANCE = 0.01
"""The largest residual of a redundant function, relative to its own variation."""
DEFAULT_INPUT_SCALE = 8.0
"""The factor by which training is assumed to enlarge the inputs of a site."""
MIN_VALUES_PER_CANDIDATE = 4
"""A bank is not inspected if its site has fewer input values per candidate."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SiteBank:
    """The inspected bank of one site.

    `skip_reason`: why the bank could not be inspected; then `columns` is None. `condition` is the condition number of
    the candidates as they are, `condition_centred` without their means; inf if some are exactly dependent. `rank` is
    that of the centred candidates. `redundant`: the candidates that depend on others before them in `retention_order`.
    `scaled_columns`: the candidates on enlarged inputs, as after training. `ranges`: smallest and largest value of each
    candidate. `overflows`: candidates that are not finite at some finite input.
    """

    site: str
    original_function: str
    names: tuple[str, ...]
    inputs: SiteInputs
    columns: Columns | None = None
    scaled_columns: Columns | None = None
    skip_reason: str = ""
    condition: float = math.nan
    condition_centred: float = math.nan
    rank: int = 0
    redundant: tuple[Dependence, ...] = ()
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    overflows: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """In JSON types; None for numbers that are infinite or unknown. `silent` is the `skip_reason`."""
        return {
            "site": self.site,
            "calls": self.inputs.calls,
            "seen": self.inputs.value_count,
            "used": 0 if self.columns is None else len(self.columns.F),
            "low": _finite(self.inputs.low),
            "high": _finite(self.inputs.high),
            "silent": self.skip_reason,
            "candidates": list(self.names),
            "condition": _finite(self.condition),
            "condition_centred": _finite(self.condition_centred),
            "rank": None if self.columns is None else self.rank,
            "redundant": [dependence.to_dict() for dependence in self.redundant],
            "ranges": {name: list(ends) for name, ends in self.ranges.items()},
            "overflows": list(self.overflows),
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def retention_order(names: Sequence[str], protected: Iterable[str] = ()) -> tuple[str, ...]:
    """The candidates in the order in which they are retained if some are redundant, the first to be retained first.

    First the protected ones (the model's own function), then those without learnable parameters, then scalar functions
    before functions that couple features; otherwise in the order of the bank.
    """
    protected = {*protected, ORIGINAL}

    def sort_key(name: str) -> tuple[bool, int, bool]:
        if name == ORIGINAL:
            return False, 0, False
        candidate = activations.get(name)
        return name not in protected, len(candidate.betas), not candidate.elementwise

    return tuple(sorted(names, key=sort_key))


def inspect_banks(
    supernet: Supernet,
    x: Tensor | tuple[Any, ...],
    *,
    tolerance: float = DEFAULT_TOLERANCE,
    input_scale: float = DEFAULT_INPUT_SCALE,
) -> dict[str, SiteBank]:
    """Inspect the bank of each site on the inputs that it has when `supernet` runs on `x`. Changes nothing.

    With `input_scale` above 1 also on inputs multiplied by it (`SiteBank.scaled_columns`).
    """
    originals = {site.name: site.function for site in supernet.sites}
    mixtures, inputs = supernet.mixtures(), record_site_inputs(supernet, x)
    banks = {}
    for name, mixture in mixtures.items():
        values, F = candidate_outputs(mixture.bank, inputs[name])
        bank = inspect_site(name, originals[name], mixture.names, inputs[name], values, F, tolerance)
        if input_scale > 1 and bank.columns is not None:
            _, F = candidate_outputs(mixture.bank, inputs[name].scaled(input_scale))
            F = F[F.float().isfinite().all(1)]
            enough = len(F) >= MIN_VALUES_PER_CANDIDATE * len(mixture.names)
            bank = replace(bank, scaled_columns=Columns(mixture.names, F) if enough else None)
        banks[name] = bank
    return banks


def inspect_site(
    site: str, original_function: str, names: Sequence[str], inputs: SiteInputs, x: Tensor, F: Tensor, tolerance: float
) -> SiteBank:
    """Inspect one site, given input values x (n,) and its candidates on them, F (n, K)."""
    names = tuple(names)
    finite = F.float().isfinite()  # a value that overflows float32 overflows in the search
    F, finite_inputs = F[finite.all(1)], x.isfinite()
    finite_candidates = finite[finite_inputs].all(0).tolist()
    overflows = tuple(name for name, ok in zip(names, finite_candidates, strict=True) if not ok)
    bank = SiteBank(site=site, original_function=original_function, names=names, inputs=inputs, overflows=overflows)
    if not inputs.reached:
        return replace(bank, skip_reason="the data does not reach it")
    if len(F) < MIN_VALUES_PER_CANDIDATE * len(names):
        return replace(bank, skip_reason=f"too few values: {len(F)} for {len(names)} candidates")
    columns = Columns(names, F)
    order = retention_order(names, [original_function])
    ends = zip(names, F.amin(0).tolist(), F.amax(0).tolist(), strict=True)
    return replace(
        bank,
        columns=columns,
        condition=condition_number(F),
        condition_centred=centred_condition_number(F),
        rank=numerical_rank(F, tolerance),
        redundant=tuple(_find_redundant(columns, order, tolerance)),
        ranges={name: (low, high) for name, low, high in ends},
    )


def tolerance_passes(tolerance: float, *, combine: bool = True) -> tuple[tuple[float, bool], ...]:
    """The passes of a search for dependences: (tolerance, whether several others may be combined).

    Exact dependences before approximate ones, one other before several, so that each is reported as the simplest that
    it is.
    """
    exact, near = (EXACT_TOLERANCE, combine), (tolerance, False)
    return (exact, near, (tolerance, True)) if combine else (exact, near)


def _find_redundant(columns: Columns, order: Sequence[str], tolerance: float) -> list[Dependence]:
    """The candidates that depend on those before them in `order`, in this order."""
    dependences: dict[str, Dependence] = {}
    for limit, combine in tolerance_passes(tolerance):
        retained: list[str] = []
        for name in order:
            if name in dependences:
                continue
            dependence = columns.find_dependence(name, retained, limit, combine=combine)
            if dependence is None:
                retained.append(name)
            else:
                dependences[name] = dependence
    return [dependences[name] for name in order if name in dependences]


def evenly_spaced_examples(x: Tensor, count: int) -> Tensor:
    """`count` examples of x (N, ...) at even distances: data files are often sorted by class."""
    if len(x) <= count:
        return x
    return x[torch.arange(count, device=x.device) * len(x) // count]
