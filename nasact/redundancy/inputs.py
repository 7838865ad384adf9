"""What each site of a supernet really sees on one batch, sampled. Looks only: the supernet and all generators stay."""

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

LIMIT = 2**14
"""Values a site that are kept at most, beyond one whole example; candidates are evaluated on these."""
SAMPLES = 4096
"""Values a site, of those that are kept, that least squares see at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SiteInputs:
    """The inputs of one site: of all `calls` together `seen` values between `low` and `high`.

    `kept`: whole examples of some or all calls, so that functions which couple features can be evaluated too; those
    with the smallest and the largest value of their call are among them. NaN ends where nothing finite was seen.
    """

    calls: int
    seen: int
    low: float
    high: float
    kept: tuple[Tensor, ...]

    @property
    def reached(self) -> bool:
        return self.seen > 0

    def scaled(self, factor: float) -> SiteInputs:
        """The same inputs, `factor` times as large."""
        kept = tuple(factor * x for x in self.kept)
        return replace(self, low=factor * self.low, high=factor * self.high, kept=kept)


class _Recorder:
    """A hook before a mixture: counts all that passes, and keeps copies of a bounded part."""

    def __init__(self) -> None:
        self.calls = self.seen = 0
        self.low, self.high = math.inf, -math.inf
        self.kept: list[Tensor] = []

    def __call__(self, module: object, arguments: tuple[Any, ...]) -> None:
        x = arguments[0].detach()
        x = x if x.dim() else x[None]
        self.calls += 1
        self.seen += x.numel()
        finite = x[x.isfinite()]
        if finite.numel():
            self.low = min(self.low, float(finite.min()))
            self.high = max(self.high, float(finite.max()))
        if x.numel():
            self.kept.append(_thinned(x, LIMIT))

    def inputs(self) -> SiteInputs:
        ends = (self.low, self.high) if self.low <= self.high else (math.nan, math.nan)
        kept = tuple(x.cpu() for x in _bounded(self.kept))
        return SiteInputs(calls=self.calls, seen=self.seen, low=ends[0], high=ends[1], kept=kept)


def _evenly(count: int, among: int) -> list[int]:
    """`count` of the indices below `among`, evenly spread, the first always."""
    return sorted({index * among // count for index in range(min(count, among))})


def _thinned(x: Tensor, limit: int) -> Tensor:
    """A copy of some examples of x (N, ...), with about `limit` values, the smallest and the largest among them."""
    each = x[0].numel()
    count = max(1, limit // each)
    if count >= len(x):
        return x.clone()
    flat = x.nan_to_num(0.0, 0.0, 0.0)
    extremes = {int(flat.argmin()) // each, int(flat.argmax()) // each}
    return x[torch.tensor(sorted({*_evenly(count, len(x)), *extremes}), device=x.device)]


def _bounded(kept: list[Tensor]) -> list[Tensor]:
    """Fewer examples of every call, or fewer calls, where many calls make too much of it."""
    total = sum(x.numel() for x in kept)
    if total <= 2 * LIMIT or len(kept) < 2:
        return kept
    calls = _evenly(max(1, min(len(kept), LIMIT // max(x[0].numel() for x in kept))), len(kept))
    return [_thinned(kept[call], LIMIT // len(calls)) for call in calls]


def site_inputs(supernet: Supernet, x: Tensor | tuple[Any, ...]) -> dict[str, SiteInputs]:
    """What each site sees when `supernet` runs once on `x`, by site, in the order of `supernet.mixtures()`.

    It runs in train mode, as the search does (BatchNorm by the batch, dropout on), from a fixed seed, without gradients
    and on a copy: parameters, buffers, modes, gradients and the generators of torch, numpy and Python are left as they
    are. All calls of a site count; a site that is never called has `reached` False.
    """
    copy = deepcopy(supernet).train()
    recorders = {name: _Recorder() for name in copy.mixtures()}
    for name, mixture in copy.mixtures().items():
        mixture.register_forward_pre_hook(recorders[name])
    with RandomStream(0), torch.no_grad():
        copy(*(x if isinstance(x, tuple) else (x,)))
    return {name: recorder.inputs() for name, recorder in recorders.items()}


@torch.no_grad()
def outputs(bank: Bank, inputs: SiteInputs) -> tuple[Tensor, Tensor]:
    """The candidates of `bank` on the kept inputs: values x (n,) and F (n, K), float64 on the CPU, n <= SAMPLES + 2.

    Betas are as they are: before a search, at their initial values. A drawn sample (always the same), with the smallest
    and the largest input; not yet without what is not finite.
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
    if len(x) > SAMPLES:
        drawn = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:SAMPLES]
        finite = x.nan_to_num(0.0, 0.0, 0.0)
        chosen = torch.unique(torch.cat([drawn, finite.argmin()[None], finite.argmax()[None]]))
        x, F = x[chosen], F[chosen]
    return x, F
