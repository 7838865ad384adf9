"""Genotypes as short text: pure functions on the plain form of a genotype (`Genotype.to_dict()`), without torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

Nested = float | Sequence["Nested"]

MOST_SITES = 4
"""Up to so many sites a genotype is told site by site, above it is counted."""


def site_means(weights: Nested) -> list[float]:
    """Mixture weights of a site averaged over channels or neurons: (..., K) -> (K,)."""
    rows = weight_rows(weights)
    return [sum(row[k] for row in rows) / len(rows) for k in range(len(rows[0]))] if rows else []


def weight_rows(weights: Nested) -> list[list[float]]:
    """Mixture weights as a list of vectors of length K, one for each channel or neuron: (..., K) -> (N, K)."""
    if isinstance(weights, int | float):
        return [[float(weights)]]
    if all(isinstance(entry, int | float) for entry in weights):
        return [[float(entry) for entry in weights if isinstance(entry, int | float)]] if weights else []
    return [row for entry in weights for row in weight_rows(entry)]


def site_text(gene: Mapping[str, Any]) -> str:
    """`relu`, or `0.60 relu + 0.40 tanh`; averaged weights where channels differ, largest first."""
    functions = list(gene["functions"])
    if len(functions) == 1:
        return str(functions[0])
    weights = site_means(gene.get("weights") or [1.0 / len(functions)] * len(functions))
    parts = sorted(zip(weights, functions, strict=True), key=lambda part: -abs(part[0]))
    text = " + ".join(f"{weight:.2f} {function}" for weight, function in parts)
    return text.replace("+ -", "- ")


def genotype_text(genotype: Mapping[str, Any] | None) -> str:
    """A genotype in a few words: one function, a list by site, or counts of functions over many sites."""
    if not genotype or not genotype.get("sites"):
        return "–"
    sites = [site_text(gene) for gene in genotype["sites"].values()]
    if len(set(sites)) == 1:
        return sites[0]
    mixed = any(len(gene["functions"]) > 1 for gene in genotype["sites"].values())
    if len(sites) <= MOST_SITES and not mixed:
        return ", ".join(sites)
    if not mixed:
        return ", ".join(f"{count}x {text}" for text, count in Counter(sites).most_common())
    used = Counter(name for gene in genotype["sites"].values() for name in gene["functions"])
    return "mixtures of " + ", ".join(name for name, _ in used.most_common())
