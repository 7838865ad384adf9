"""Comparison after the outer loop: the derived network against honest baselines, at equal budget, over several seeds.

The only room that opens the test set. Each network is trained on train + validation and measured once; the numbers are
kept as one small file each, so that a comparison that was interrupted continues. Judging them is `report`'s business.
"""

from nasact.compare.comparison import Comparison, Variant, compare
from nasact.compare.seed_run import SeedRun
from nasact.compare.variants import (
    VariantPlan,
    baseline_variants,
    network_identity,
    single_genotypes,
    site_options,
)

__all__ = [
    "Comparison",
    "SeedRun",
    "Variant",
    "VariantPlan",
    "baseline_variants",
    "compare",
    "network_identity",
    "single_genotypes",
    "site_options",
]
