"""Genotypes as short texts: pure functions of the plain form of a genotype (`Genotype.to_dict()`), without torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from nasact.reserved_names import ORIGINAL

Nested = float | Sequence["Nested"]

MAX_LISTED_SITES = 4
"""A genotype with at most this many sites is listed site by site; with more, its functions are counted."""


def site_means(weights: Nested) -> list[float]:
    """Mean of a site's mixture weights over channels or neurons: (..., K) -> (K,)."""
    rows = weight_rows(weights)
    return [sum(row[k] for row in rows) / len(rows) for k in range(len(rows[0]))] if rows else []


def weight_rows(weights: Nested) -> list[list[float]]:
    """Mixture weights as a list of vectors of length K, one per channel or neuron: (..., K) -> (N, K)."""
    if isinstance(weights, int | float):
        return [[float(weights)]]
    if all(isinstance(entry, int | float) for entry in weights):
        return [[float(entry) for entry in weights if isinstance(entry, int | float)]] if weights else []
    return [row for entry in weights for row in weight_rows(entry)]


def chosen_shares(gene: Mapping[str, Any]) -> list[float] | None:
    """Share of channels or neurons that use each function; None unless there are several that use exactly one each."""
    rows = weight_rows(gene.get("weights") or [])
    if len(rows) < 2 or any(sum(weight != 0 for weight in row) != 1 for row in rows):
        return None
    return [sum(row[k] != 0 for row in rows) / len(rows) for k in range(len(rows[0]))]


def _function_name(name: str) -> str:
    return "the model's own" if name == ORIGINAL else name


def site_text(gene: Mapping[str, Any]) -> str:
    """A site in words: `relu`; `0.60 relu + 0.40 tanh` (means over channels); `60 % relu, 40 % tanh` (of channels)."""
    functions = [_function_name(name) for name in gene["functions"]]
    weights = site_means(gene.get("weights") or [1.0 / len(functions)] * len(functions))
    if len(functions) == 1 and abs(weights[0] - 1.0) < 5e-3:
        return functions[0]
    shares = chosen_shares(gene)
    parts = sorted(zip(shares or weights, functions, strict=True), key=lambda part: -abs(part[0]))
    if shares:
        return ", ".join(f"{100 * share:.0f} % {function}" for share, function in parts)
    return " + ".join(f"{weight:.2f} {function}" for weight, function in parts).replace("+ -", "- ")


def genotype_text(genotype: Mapping[str, Any] | None) -> str:
    """A genotype in a few words: one function, a list of sites, or counts of functions over many sites."""
    if not genotype or not genotype.get("sites"):
        return "–"
    genes = list(genotype["sites"].values())
    sites = [site_text(gene) for gene in genes]
    if len(set(sites)) == 1:
        return sites[0]
    names = [_function_name(name) for gene in genes for name in gene["functions"]]
    if any(len(gene["functions"]) > 1 for gene in genes):
        kind = "channelwise " if all(chosen_shares(gene) or len(gene["functions"]) == 1 for gene in genes) else ""
        kind = kind.replace("channel", "neuron") if genotype.get("level") == "neuron" else kind
        return (kind or "mixtures of ") + ", ".join(name for name, _ in Counter(names).most_common())
    if len(sites) <= MAX_LISTED_SITES:
        return ", ".join(sites)
    return ", ".join(f"{count}x {name}" for name, count in Counter(names).most_common())
