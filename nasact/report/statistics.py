"""Statistics of a few seeds: means, intervals, paired tests, verdicts. Pure functions on sequences of floats.

Knows no tables, tasks or models. Never calls a difference that is not significant a gain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

SIGNIFICANCE_LEVEL = 0.05
MAX_EXACT_PAIRS = 16
"""The permutation test is exact up to this many pairs (2^16 sign patterns), and Monte-Carlo above."""
RESAMPLES = 100_000

BETTER = "better"
WORSE = "worse"
UNDECIDED = "no significant difference"


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean of at least one finite value."""
    return math.fsum(_require_finite(values)) / len(values)


def std(values: Sequence[float]) -> float:
    """The sample standard deviation (ddof 1); 0 for a single value, whose spread is unknown."""
    centre = mean(values)
    if len(values) == 1:
        return 0.0
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))


def ci95(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % confidence interval of the mean by Student's t; None for a single value."""
    centre, n = mean(values), len(values)
    if n == 1:
        return None
    from scipy.stats import t

    half = float(t.ppf(0.975, n - 1)) * std(values) / math.sqrt(n)
    return centre - half, centre + half


def smallest_p(n: int) -> float:
    """The smallest p that the exact two-sided sign-flip test can reach with `n` pairs: 2 / 2^n, at most 1."""
    if n < 1:
        raise ValueError(f"`n >= 1` must hold, but got (n={n})")
    return min(1.0, 2.0 / 2.0**n)


def seeds_needed(contrasts: int = 1, level: float = SIGNIFICANCE_LEVEL) -> int:
    """The fewest seeds with which one of `contrasts` Holm-corrected contrasts could fall below `level`."""
    n = 1
    while contrasts * smallest_p(n) >= level:
        n += 1
    return n


def paired_permutation_test(
    a: Sequence[float], b: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0
) -> float:
    """Two-sided p-value of the sign-flip test of `mean(a - b) = 0`; values at the same position (seed) are a pair.

    Exact up to 16 pairs, by enumeration of all 2^n sign patterns. Above, Monte-Carlo with `resamples` draws from a
    fixed `seed`; the observed pattern counts as one more draw, so that p is never zero.
    """
    differences = paired_differences(a, b)
    scale = math.fsum(abs(d) for d in differences)
    if scale == 0.0:
        return 1.0
    # Sums that are equal in exact arithmetic differ by rounding: without the tolerance, ties would be missed at random.
    threshold = abs(math.fsum(differences)) - 1e-9 * scale
    if len(differences) > MAX_EXACT_PAIRS:
        return _monte_carlo_p(differences, threshold, resamples, seed)
    sums = [differences[0]]  # the first sign is fixed: the other half of the patterns has the same absolute sums
    for difference in differences[1:]:
        sums = [total + difference for total in sums] + [total - difference for total in sums]
    return sum(abs(total) >= threshold for total in sums) / len(sums)


def _monte_carlo_p(differences: Sequence[float], threshold: float, resamples: int, seed: int) -> float:
    import numpy as np

    generator = np.random.default_rng(seed)
    values = np.asarray(differences)
    extreme, drawn = 0, 0
    while drawn < resamples:
        count = min(10_000, resamples - drawn)
        signs = generator.integers(0, 2, size=(count, len(values)), dtype=np.int8) * 2.0 - 1.0
        extreme += int(np.count_nonzero(np.abs(signs @ values) >= threshold))
        drawn += count
    return (extreme + 1) / (resamples + 1)


def holm(pvalues: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given."""
    adjusted = [0.0] * len(pvalues)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(pvalues)), key=lambda i: pvalues[i])):
        largest = max(largest, (len(pvalues) - rank) * pvalues[index])
        adjusted[index] = min(1.0, largest)
    return adjusted


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """The derived network against one other variant, over the same seeds. Accuracies and differences are fractions."""

    other: str
    n: int
    difference: float
    """mean(derived - other): positive if the derived network is better."""
    ci95: tuple[float, float] | None
    p: float
    p_holm: float
    verdict: str
    """`better`, `worse` or `no significant difference`: `p_holm` against the significance level, 0.05."""
    text: str
    """The verdict in words. It says so if the seeds were too few for any significant difference."""

    @property
    def too_few_seeds(self) -> bool:
        return self.text.startswith("too few")

    def to_dict(self) -> dict[str, Any]:
        record = asdict(self)
        record["ci95"] = None if self.ci95 is None else list(self.ci95)
        return record


def compare_variants(
    derived: Sequence[float], others: Mapping[str, Sequence[float]], *, level: float = SIGNIFICANCE_LEVEL
) -> list[Contrast]:
    """One contrast per variant in `others`, in their order, with Holm's correction over all of them."""
    pvalues = [paired_permutation_test(derived, values) for values in others.values()]
    contrasts = []
    for (name, values), p, adjusted in zip(others.items(), pvalues, holm(pvalues), strict=True):
        differences = paired_differences(derived, values)
        verdict, text = _verdict(differences, adjusted, len(others), level)
        contrasts.append(
            Contrast(
                other=name,
                n=len(differences),
                difference=mean(differences),
                ci95=ci95(differences),
                p=p,
                p_holm=adjusted,
                verdict=verdict,
                text=text,
            )
        )
    return contrasts


def _verdict(differences: Sequence[float], p_holm: float, contrasts: int, level: float) -> tuple[str, str]:
    if p_holm < level:
        verdict = BETTER if math.fsum(differences) > 0 else WORSE
        return verdict, verdict
    if not any(differences):
        return UNDECIDED, "the same in every seed"
    smallest = smallest_p(len(differences))
    if smallest >= level:
        return UNDECIDED, f"too few seeds to tell (smallest possible p = {smallest:.2f})"
    if contrasts * smallest >= level:
        corrected = min(1.0, contrasts * smallest)
        return UNDECIDED, f"too few seeds to tell (smallest possible Holm p = {corrected:.2f})"
    return UNDECIDED, UNDECIDED


def paired_differences(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """`a - b` by position; both must have the same seeds in the same order."""
    if len(a) != len(b):
        raise ValueError(f"paired values need sequences of equal length, but got {len(a)} and {len(b)} values")
    return [x - y for x, y in zip(_require_finite(a), _require_finite(b), strict=True)]


def _require_finite(values: Sequence[float]) -> Sequence[float]:
    if not values:
        raise ValueError("at least one value is needed, but got none")
    for value in values:
        if not math.isfinite(value):
            raise ValueError(f"finite values are needed, but got {value}")
    return values
