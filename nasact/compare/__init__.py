"""Comparison after the outer loop: the derived network against honest baselines, at equal budget, over several seeds.

The only room that opens the test set. Each network is trained on train + validation and measured once; the numbers are
kept as one small file each, so that a comparison that was interrupted continues. Judging them is `report`'s business.
"""

from nasact.compare.comparison import Comparison, Variant, compare
from nasact.compare.seed_run import Cell
from nasact.compare.variants import (
    Plan,
    baseline_plans,
    fresh_model,
    network_identity,
    single_genotypes,
    site_options,
)

__all__ = [
    "Cell",
    "Comparison",
    "Plan",
    "Variant",
    "baseline_plans",
    "compare",
    "fresh_model",
    "network_identity",
    "single_genotypes",
    "site_options",
]
