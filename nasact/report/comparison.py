"""Labels, functions and contrasts of the variants of a comparison, from its plain form (`Comparison.to_dict()`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nasact.report.genotype_text import genotype_text
from nasact.report.statistics import Contrast, compare_variants

DERIVED = "derived"
"""Name of the variant that was searched; all others are baselines."""


def derived_first(names: Mapping[str, Any]) -> list[str]:
    """The names of the variants, the derived network first, the others in their order."""
    return sorted(names, key=lambda name: name != DERIVED)


def variant_labels(comparison: Mapping[str, Any]) -> dict[str, str]:
    """Short label of each variant, the same in every table and plot."""
    best_single = comparison.get("best_single")
    labels = {name: name.replace("_", " ") for name in comparison["variants"]}
    if best_single and "best_single" in labels:
        labels["best_single"] = f"best single ({best_single})"
    return labels


def variant_functions(variant: Mapping[str, Any]) -> str:
    """The functions of a variant in words; its genotypes may differ from seed to seed."""
    if "functions" in variant:
        return str(variant["functions"])  # the form of the result document
    genotypes = variant.get("genotypes") or [variant.get("genotype")]
    return genotype_text(genotypes[0]) if len(genotypes) == 1 else "drawn anew for each seed"


def derived_contrasts(comparison: Mapping[str, Any]) -> list[Contrast]:
    """The derived network against each other variant; empty if the derived network was not trained."""
    accuracies = {name: variant["test_accuracies"] for name, variant in comparison["variants"].items()}
    derived = accuracies.pop(DERIVED, None)
    return compare_variants(derived, accuracies) if derived else []
