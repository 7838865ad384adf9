"""Candidates as columns of numbers: conditioning, rank, and columns that depend linearly on others. Knows no sites."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

EXACT_TOLERANCE = 2.0**-20
"""The relative difference up to which two functions count as equal: float32 sums cannot separate them (about 1e-6)."""
MAX_EXACT_TERMS = 3
"""The most terms of an exact identity. A longer sum that is as close is reported as an approximation."""

Kind = Literal["constant", "equal", "affine", "near", "combination"]


def centred(F: Tensor) -> Tensor:
    """F (n, K) without the mean of each column."""
    return F - F.mean(0, keepdim=True)


def unit_columns(F: Tensor) -> Tensor:
    """F (n, K) with columns scaled to norm one; a column of zeros stays zero."""
    norms = torch.linalg.vector_norm(F, dim=0)
    return F / torch.where(norms > 0, norms, torch.ones_like(norms))


def _centred_or_zero(F: Tensor) -> Tensor:
    """`centred`, with exact zeros in a column whose variation is within EXACT_TOLERANCE of its largest magnitude."""
    C = centred(F)
    spread = torch.linalg.vector_norm(C, dim=0) / math.sqrt(max(1, len(F)))
    return torch.where(spread > EXACT_TOLERANCE * F.abs().amax(0), C, torch.zeros_like(C))


def condition_number(F: Tensor) -> float:
    """Largest over smallest singular value of F (n, K) with columns scaled to norm one; inf if one is zero.

    1: the columns are orthogonal. A singular value counts as zero below n eps times the largest, float64's rounding.
    """
    s = torch.linalg.svdvals(unit_columns(F))
    if len(s) < F.shape[1] or not bool(s[-1] > s[0] * max(F.shape) * torch.finfo(F.dtype).eps):
        return math.inf
    return float(s[0] / s[-1])


def centred_condition_number(F: Tensor) -> float:
    """`condition_number` of the centred columns: that of a mixture whose constants the next layer's bias absorbs."""
    return condition_number(_centred_or_zero(F))


def numerical_rank(F: Tensor, tolerance: float) -> int:
    """How many singular values of the centred columns, scaled to norm one, exceed `tolerance` times the largest."""
    s = torch.linalg.svdvals(unit_columns(_centred_or_zero(F)))
    return int((s > tolerance * s[0]).sum()) if len(s) else 0


@dataclass(frozen=True, kw_only=True)
class Dependence:
    """A candidate as a sum of others, `sum terms[g] g(x) + offset`, up to `residual` (relative to its variation).

    Kinds: constant: it does not vary; equal: it equals one other; affine: one other, scaled and shifted; near: affine
    within the tolerance; combination: several others are needed.
    """

    name: str
    kind: Kind
    terms: Mapping[str, float]
    offset: float
    residual: float

    def __str__(self) -> str:
        exact = self.residual <= EXACT_TOLERANCE
        parts = [(value, name) for name, value in self.terms.items()]
        shown = [f"{_coefficient(abs(value))}{name}" for value, name in parts]
        text = "".join(f"{' - ' if value < 0 else ' + '}{term}" for (value, _), term in zip(parts, shown, strict=True))
        text = f"-{text[3:]}" if text.startswith(" - ") else text[3:]
        size = max((abs(value) for value in self.terms.values()), default=0.0)
        if not self.terms:
            return f"{self.name} = {self.offset:.3g} (constant)"
        if abs(self.offset) > 5e-3 * size:
            text += f" {'-' if self.offset < 0 else '+'} {abs(self.offset):.2g}"
        return f"{self.name} {'=' if exact else '~'} {text}" + ("" if exact else f" ({_percent(self.residual)})")

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "terms": dict(self.terms),
            "offset": self.offset,
            "residual": self.residual,
            "text": str(self),
        }


def _coefficient(value: float) -> str:
    return "" if abs(value - 1) < 5e-3 else f"{value:.2g} "


def _percent(share: float) -> str:
    return f"{100 * share:.1g} %" if share < 0.01 else f"{100 * share:.2g} %"


class Columns:
    """K named candidates on n inputs, F (n, K) finite, prepared for least squares of one column on others.

    All fits include a constant. They use R of the centred F = Q R: K rows instead of n, the same lengths and angles.
    """

    def __init__(self, names: Sequence[str], F: Tensor) -> None:
        if F.dim() != 2 or F.shape[1] != len(names):
            raise ValueError(f"expected one column for each of {list(names)}, but got shape {tuple(F.shape)}")
        self.names = tuple(names)
        self.F = F.double()
        self._index = {name: index for index, name in enumerate(self.names)}
        self._means = self.F.mean(0).numpy()
        R = torch.linalg.qr(_centred_or_zero(self.F), mode="r").R
        self._norms = torch.linalg.vector_norm(R, dim=0).numpy()
        self._unit = unit_columns(R).numpy()
        # residuals (K, K) of each row's candidate fitted on each column's candidate
        cosines = self._unit.T @ self._unit
        rest = self._unit[:, :, None] - cosines[None] * self._unit[:, None, :]
        self._pair_residuals = np.sqrt((rest**2).sum(0))
        # (K, K): whether two candidates have equal values
        largest = self.F.abs().amax(0)
        differences = torch.stack([(self.F - column[:, None]).abs().amax(0) for column in self.F.T])
        self._equal = differences <= EXACT_TOLERANCE * largest[:, None]

    def fit(self, name: str, others: Sequence[str]) -> tuple[dict[str, float], float, float]:
        """Coefficients, offset and relative residual of the best fit of a varying column on other varying columns."""
        k, indices = self._index[name], [self._index[other] for other in others]
        target, A = self._unit[:, k], self._unit[:, indices]
        solution = np.linalg.lstsq(A, target, rcond=1e-10)[0]
        residual = float(np.linalg.norm(target - A @ solution))
        scaled = solution * self._norms[k] / self._norms[indices]
        terms = {other: float(value) for other, value in zip(others, scaled, strict=True)}
        return terms, float(self._means[k] - scaled @ self._means[indices]), residual

    def find_dependence(
        self, name: str, others: Iterable[str], tolerance: float, *, combine: bool
    ) -> Dependence | None:
        """How the candidate `name` depends on `others` within `tolerance`, in the simplest way; None if it does not.

        `combine`: whether several others may be combined; otherwise at most one is used.
        """
        k, tolerance = self._index[name], max(tolerance, EXACT_TOLERANCE)
        varying = [other for other in others if other != name and self._norms[self._index[other]] > 0]
        if not self._norms[k] > 0:
            return Dependence(name=name, kind="constant", terms={}, offset=float(self._means[k]), residual=0.0)
        if not varying:
            return None
        for other in varying:
            if self._equal[k, self._index[other]]:
                return Dependence(name=name, kind="equal", terms={other: 1.0}, offset=0.0, residual=0.0)
        nearest = min(varying, key=lambda other: float(self._pair_residuals[k, self._index[other]]))
        if self._pair_residuals[k, self._index[nearest]] <= tolerance:
            terms, offset, residual = self.fit(name, [nearest])
            kind: Kind = "affine" if residual <= EXACT_TOLERANCE else "near"
            return Dependence(name=name, kind=kind, terms=terms, offset=offset, residual=residual)
        return self._combination(name, varying, tolerance) if combine else None

    def _combination(self, name: str, others: Sequence[str], tolerance: float) -> Dependence | None:
        """The best fit on all others, without the terms that the tolerance does not need, removed smallest first."""
        best = self.fit(name, others)
        if best[2] > tolerance:
            return None
        needed: set[str] = set()
        while len(needed) < len(best[0]):
            sizes = {other: abs(value) * self._norms[self._index[other]] for other, value in best[0].items()}
            smallest = min((other for other in sizes if other not in needed), key=lambda other: float(sizes[other]))
            without = self.fit(name, [other for other in best[0] if other != smallest])
            if without[2] <= tolerance:
                best = without
            else:
                needed.add(smallest)
        if tolerance <= EXACT_TOLERANCE and len(best[0]) > MAX_EXACT_TERMS:
            return None
        return Dependence(name=name, kind="combination", terms=best[0], offset=best[1], residual=best[2])
