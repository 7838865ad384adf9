"""The plots of a trial and of a comparison, as PNG bytes by file name. Passes results to `report.plots`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nasact.compare import Comparison
    from nasact.results import TrialResult


def trial_figures(result: TrialResult, original_functions: Mapping[str, str]) -> dict[str, bytes]:
    """Mixture weights over time and at the end, and the learned shapes.

    `original_functions`: site -> the model's own function.
    """
    from nasact.report import plots

    figures: dict[str, bytes] = {}
    if result.weights_over_time:
        last = {site: rows[-1] for site, rows in result.weights_over_time.items()}
        figures["weights_over_time.png"] = plots.png(plots.weights_over_time(result.weights_over_time, result.banks))
        figures["final_weights.png"] = plots.png(plots.final_weights(last, result.banks))
    if result.genotype is not None:
        figures["learned_shapes.png"] = _shapes(result.genotype.to_dict(), original_functions)
    return figures


def comparison_figures(comparison: Comparison, original_functions: Mapping[str, str]) -> dict[str, bytes]:
    """Test accuracies of every variant, and the learned shapes next to those of the model's own functions."""
    from nasact.report import plots

    document = comparison.to_dict()
    derived = comparison.variants["derived"].genotype.to_dict()
    return {
        "accuracies.png": plots.png(plots.accuracies(document)),
        "learned_shapes.png": _shapes(derived, original_functions),
    }


def _shapes(genotype: Mapping[str, Any], original_functions: Mapping[str, str]) -> bytes:
    from nasact.report import plots
    from nasact.report.site_functions import genotype_evaluator, original_evaluator

    known = set(genotype["sites"]) <= set(original_functions)
    reference = original_evaluator(original_functions) if known else None
    learned = genotype_evaluator(genotype, original_functions)
    return plots.png(plots.learned_shapes(genotype, learned, reference=reference))
