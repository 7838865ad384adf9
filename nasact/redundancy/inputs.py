"""The inputs of each site of a supernet on one batch, and the candidates' outputs on a sample of them.

Changes nothing: neither the supernet nor the random generators.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nasact.mixture import Bank
from nasact.supernet import Supernet
from nasact.training.seeds import RandomStream

MAX_KEPT_VALUES = 2**14
"""The largest number of input values that are kept per site, if more than one example is kept."""
MAX_SAMPLED_VALUES = 4096
"""The largest number of kept values per site that enter the least squares."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SiteInputs:
    """The inputs of one site: `value_count` values in `calls` calls, all between `low` and `high`.

    `kept`: whole examples of some or all calls, so that functions that couple features can be evaluated too. The
    examples with the smallest and the largest value of a kept call are included. `low` and `high` are NaN if no finite
    value occurs.
    """

    calls: int
    value_count: int
    low: float
    high: float
    kept: tuple[Tensor, ...]

    @property
    def reached(self) -> bool:
        """Whether the data reaches the site."""
        return self.value_count > 0

    def scaled(self, factor: float) -> SiteInputs:
        """The same inputs multiplied by `factor`."""
        kept = tuple(factor * x for x in self.kept)
        return replace(self, low=factor * self.low, high=factor * self.high, kept=kept)


class _Recorder:
    """A forward pre-hook of a mixture: counts all input values, and keeps copies of a bounded part of them."""

    def __init__(self) -> None:
        self.calls = self.value_count = 0
        self.low, self.high = math.inf, -math.inf
        self.kept: list[Tensor] = []

    def __call__(self, module: object, arguments: tuple[Any, ...]) -> None:
        x = arguments[0].detach()
        x = x if x.dim() else x[None]
        self.calls += 1
        self.value_count += x.numel()
        finite = x[x.isfinite()]
        if finite.numel():
            self.low = min(self.low, float(finite.min()))
            self.high = max(self.high, float(finite.max()))
        if x.numel():
            self.kept.append(_sample_examples(x, MAX_KEPT_VALUES))

    def inputs(self) -> SiteInputs:
        ends = (self.low, self.high) if self.low <= self.high else (math.nan, math.nan)
        kept = tuple(x.cpu() for x in _bound_size(self.kept))
        return SiteInputs(calls=self.calls, value_count=self.value_count, low=ends[0], high=ends[1], kept=kept)


def _evenly_spaced(count: int, total: int) -> list[int]:
    """`count` evenly spaced indices below `total`, including 0."""
    return sorted({index * total // count for index in range(min(count, total))})


def _sample_examples(x: Tensor, limit: int) -> Tensor:
    """A copy of some examples of x (N, ...), about `limit` values, including the smallest and the largest value."""
    example_size = x[0].numel()
    count = max(1, limit // example_size)
    if count >= len(x):
        return x.clone()
    flat = x.nan_to_num(0.0, 0.0, 0.0)
    extremes = {int(flat.argmin()) // example_size, int(flat.argmax()) // example_size}
    return x[torch.tensor(sorted({*_evenly_spaced(count, len(x)), *extremes}), device=x.device)]


def _bound_size(kept: list[Tensor]) -> list[Tensor]:
    """Fewer examples of each call, or fewer calls, if all calls together have too many values."""
    total = sum(x.numel() for x in kept)
    if total <= 2 * MAX_KEPT_VALUES or len(kept) < 2:
        return kept
    largest_example = max(x[0].numel() for x in kept)
    calls = _evenly_spaced(max(1, min(len(kept), MAX_KEPT_VALUES // largest_example)), len(kept))
    return [_sample_examples(kept[call], MAX_KEPT_VALUES // len(calls)) for call in calls]


def record_site_inputs(supernet: Supernet, x: Tensor | tuple[Any, ...]) -> dict[str, SiteInputs]:
    """The inputs of each site when `supernet` runs once on `x`; by site, in the order of `supernet.mixtures()`.

    Runs a copy in train mode, as the search does (BatchNorm with batch statistics, with dropout), from a fixed seed and
    without gradients. Parameters, buffers, modes, gradients and the generators of torch, numpy and python stay as they
    are. All calls of a site are recorded; a site that is never called has `reached` False.
    """
    copy = deepcopy(supernet).train()
    recorders = {name: _Recorder() for name in copy.mixtures()}
    for name, mixture in copy.mixtures().items():
        mixture.register_forward_pre_hook(recorders[name])
    with RandomStream(0), torch.no_grad():
        copy(*(x if isinstance(x, tuple) else (x,)))
    return {name: recorder.inputs() for name, recorder in recorders.items()}


@torch.no_grad()
def candidate_outputs(bank: Bank, inputs: SiteInputs) -> tuple[Tensor, Tensor]:
    """Inputs x (n,) and the candidates of `bank` on them, F (n, K); float64 on the CPU, n <= MAX_SAMPLED_VALUES + 2.

    Betas have their current values: before a search, the initial ones. The sample is random with a fixed seed, and
    includes the smallest and the largest input. Values that are not finite are included.
    """
    bank = deepcopy(bank).to(device="cpu", dtype=torch.float64)
    values, rows = [], []
    for kept in inputs.kept:
        x = kept.double()
        values.append(x.reshape(-1))
        rows.append(torch.stack([term(x).reshape(-1) for term in bank.terms(x)], -1))
    if not values:
        return torch.empty(0, dtype=torch.float64), torch.empty(0, len(bank.names), dtype=torch.float64)
    x, F = torch.cat(values), torch.cat(rows)
    if len(x) > MAX_SAMPLED_VALUES:
        drawn = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:MAX_SAMPLED_VALUES]
        finite = x.nan_to_num(0.0, 0.0, 0.0)
        chosen = torch.unique(torch.cat([drawn, finite.argmin()[None], finite.argmax()[None]]))
        x, F = x[chosen], F[chosen]
    return x, F
