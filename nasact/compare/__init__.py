"""Comparison after the outer loop: the derived network against strong baselines, at equal budget, over several seeds.

The only room that opens the test set. Each network is trained on train + validation data and measured once; each
measurement is stored in a small file, so that an interrupted comparison continues. The statistics are in `report`.
"""

from nasact.compare.comparison import Comparison, Variant, compare
from nasact.compare.seed_run import SeedRun
from nasact.compare.variants import (
    VariantSpec,
    baseline_variants,
    network_identity,
    single_genotypes,
    site_options,
)

__all__ = [
    "Comparison",
    "SeedRun",
    "Variant",
    "VariantSpec",
    "baseline_variants",
    "compare",
    "network_identity",
    "single_genotypes",
    "site_options",
]
