"""The plots of a trial and of a comparison, as PNG bytes by file name. Joins results to `report`; draws nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nasact.compare import Comparison
    from nasact.trial import TrialResult


def trial_figures(result: TrialResult, own: Mapping[str, str]) -> dict[str, bytes]:
    """Mixture weights over time and at the end, and the learned shapes; `own`: the model's own functions by site."""
    from nasact.report import plots

    figures: dict[str, bytes] = {}
    if result.weights_over_time:
        last = {site: rows[-1] for site, rows in result.weights_over_time.items()}
        figures["weights_over_time.png"] = plots.png(plots.weights_over_time(result.weights_over_time, result.banks))
        figures["final_weights.png"] = plots.png(plots.final_weights(last, result.banks))
    if result.genotype is not None:
        figures["learned_shapes.png"] = _shapes(result.genotype.to_dict(), own)
    return figures


def comparison_figures(comparison: Comparison, own: Mapping[str, str]) -> dict[str, bytes]:
    """Test accuracies of every variant, and the shapes of the derived network before the model's own."""
    from nasact.report import plots

    document = comparison.to_dict()
    derived = comparison.variants["derived"].genotype.to_dict()
    return {
        "accuracies.png": plots.png(plots.accuracies(document)),
        "learned_shapes.png": _shapes(derived, own),
    }


def _shapes(genotype: Mapping[str, Any], own: Mapping[str, str]) -> bytes:
    from nasact.report import plots
    from nasact.report.shapes import evaluator, own_functions

    known = set(genotype["sites"]) <= set(own)
    reference = own_functions(own) if known else None
    return plots.png(plots.learned_shapes(genotype, evaluator(genotype, own), reference=reference))
