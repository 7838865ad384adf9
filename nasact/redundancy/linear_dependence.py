"""Candidates as columns of numbers: conditioning, rank, and which column others make up. Knows no sites."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

EXACT = 2.0**-20
"""Relative difference below which two functions are one: what sums in float32 cannot tell apart (about 1e-6)."""
MOST_TERMS = 3
"""An exact identity of functions is short; a longer sum that is this close is told as the approximation that it is."""

Kind = Literal["constant", "equal", "affine", "near", "combination"]


def centred(F: Tensor) -> Tensor:
    """F (n, K) with the mean of each column taken off."""
    return F - F.mean(0, keepdim=True)


def unit(F: Tensor) -> Tensor:
    """F (n, K) with columns of norm one; a column of zeros stays."""
    norms = torch.linalg.vector_norm(F, dim=0)
    return F / torch.where(norms > 0, norms, torch.ones_like(norms))


def _varying(F: Tensor) -> Tensor:
    """`centred`, and exactly zero where a column does not change beyond EXACT of its size."""
    C = centred(F)
    spread = torch.linalg.vector_norm(C, dim=0) / math.sqrt(max(1, len(F)))
    return torch.where(spread > EXACT * F.abs().amax(0), C, torch.zeros_like(C))


def condition(F: Tensor) -> float:
    """Largest over smallest singular value of F (n, K) with columns scaled to norm one; inf where one is zero.

    1: the columns are orthogonal. Zero means below n eps of the largest, float64's own rounding.
    """
    s = torch.linalg.svdvals(unit(F))
    if len(s) < F.shape[1] or not bool(s[-1] > s[0] * max(F.shape) * torch.finfo(F.dtype).eps):
        return math.inf
    return float(s[0] / s[-1])


def condition_centred(F: Tensor) -> float:
    """`condition` of the columns without their means: that of the mixture, the constants being left to a bias."""
    return condition(_varying(F))


def rank(F: Tensor, tolerance: float) -> int:
    """How many singular values of the centred columns, scaled to norm one, exceed `tolerance` times the largest."""
    s = torch.linalg.svdvals(unit(_varying(F)))
    return int((s > tolerance * s[0]).sum()) if len(s) else 0


@dataclass(frozen=True, kw_only=True)
class Redundant:
    """One candidate as others have it: `sum terms[g] g(x) + offset`, up to `residual` (relative to its variation).

    constant: it does not vary; equal: it is one other; affine: one other, scaled and shifted; near: the same within the
    tolerance; combination: several others are needed.
    """

    name: str
    kind: Kind
    terms: Mapping[str, float]
    offset: float
    residual: float

    def __str__(self) -> str:
        exact = self.residual <= EXACT
        parts = [(value, name) for name, value in self.terms.items()]
        shown = [f"{_number(abs(value))}{name}" for value, name in parts]
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


def _number(value: float) -> str:
    return "" if abs(value - 1) < 5e-3 else f"{value:.2g} "


def _percent(share: float) -> str:
    return f"{100 * share:.1g} %" if share < 0.01 else f"{100 * share:.2g} %"


class Columns:
    """K named candidates on n inputs, F (n, K) finite, made ready for least squares of one in others and a constant.

    Fits are made in R of centred F = Q R: K numbers instead of n, the same lengths and angles.
    """

    def __init__(self, names: Sequence[str], F: Tensor) -> None:
        if F.dim() != 2 or F.shape[1] != len(names):
            raise ValueError(f"expected one column for each of {list(names)}, but got shape {tuple(F.shape)}")
        self.names = tuple(names)
        self.F = F.double()
        self._at = {name: index for index, name in enumerate(self.names)}
        self._means = self.F.mean(0).numpy()
        R = torch.linalg.qr(_varying(self.F), mode="r").R
        self._norms = torch.linalg.vector_norm(R, dim=0).numpy()
        self._unit = unit(R).numpy()
        # one in one other: residuals (K, K), row in column; and which are the same numbers
        cosines = self._unit.T @ self._unit
        rest = self._unit[:, :, None] - cosines[None] * self._unit[:, None, :]
        self._alone = np.sqrt((rest**2).sum(0))
        largest = self.F.abs().amax(0)
        self._same = (
            torch.stack([(self.F - one[:, None]).abs().amax(0) for one in self.F.T]) <= EXACT * largest[:, None]
        )

    def fit(self, name: str, others: Sequence[str]) -> tuple[dict[str, float], float, float]:
        """Coefficients, offset and relative residual of the best fit of a varying column in other varying ones."""
        k, at = self._at[name], [self._at[other] for other in others]
        target, A = self._unit[:, k], self._unit[:, at]
        found = np.linalg.lstsq(A, target, rcond=1e-10)[0]
        residual = float(np.linalg.norm(target - A @ found))
        scaled = found * self._norms[k] / self._norms[at]
        terms = {other: float(value) for other, value in zip(others, scaled, strict=True)}
        return terms, float(self._means[k] - scaled @ self._means[at]), residual

    def redundant(self, name: str, others: Iterable[str], tolerance: float, *, combine: bool) -> Redundant | None:
        """How `others` make up the candidate `name` within `tolerance`, by the simplest that serve; None: they do not.

        Without `combine` by one other at most.
        """
        k, tolerance = self._at[name], max(tolerance, EXACT)
        varying = [other for other in others if other != name and self._norms[self._at[other]] > 0]
        if not self._norms[k] > 0:
            return Redundant(name=name, kind="constant", terms={}, offset=float(self._means[k]), residual=0.0)
        if not varying:
            return None
        for other in varying:
            if self._same[k, self._at[other]]:
                return Redundant(name=name, kind="equal", terms={other: 1.0}, offset=0.0, residual=0.0)
        nearest = min(varying, key=lambda other: float(self._alone[k, self._at[other]]))
        if self._alone[k, self._at[nearest]] <= tolerance:
            terms, offset, residual = self.fit(name, [nearest])
            kind: Kind = "affine" if residual <= EXACT else "near"
            return Redundant(name=name, kind=kind, terms=terms, offset=offset, residual=residual)
        return self._combination(name, varying, tolerance) if combine else None

    def _combination(self, name: str, others: Sequence[str], tolerance: float) -> Redundant | None:
        """The best fit in all others; then without those, the least first, that are not needed for the tolerance."""
        best = self.fit(name, others)
        if best[2] > tolerance:
            return None
        needed: set[str] = set()
        while len(needed) < len(best[0]):
            sizes = {each: abs(value) * self._norms[self._at[each]] for each, value in best[0].items()}
            least = min((each for each in sizes if each not in needed), key=lambda each: float(sizes[each]))
            without = self.fit(name, [each for each in best[0] if each != least])
            if without[2] <= tolerance:
                best = without
            else:
                needed.add(least)
        if tolerance <= EXACT and len(best[0]) > MOST_TERMS:
            return None
        return Redundant(name=name, kind="combination", terms=best[0], offset=best[1], residual=best[2])
