"""What a tracker (MLflow) shows of a trial and of the comparison: metrics, text files and plots.

The tracker decides where each of them goes; nothing here knows MLflow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from nasact.outer.figures import comparison_figures, trial_figures
from nasact.report.comparison_table import comparison_table
from nasact.report.statistics import mean

if TYPE_CHECKING:
    from nasact.compare import Comparison
    from nasact.results import TrialResult


@dataclass(frozen=True, kw_only=True)
class TrackingContent:
    """Numbers by metric, texts by file name; `figures` renders the plots (file name -> PNG bytes) when it is called."""

    metrics: Mapping[str, float]
    texts: Mapping[str, str]
    figures: Callable[[], Mapping[str, bytes]] | None = None


def trial_content(result: TrialResult, original_functions: Mapping[str, str]) -> TrackingContent:
    """The content of a finished trial. `original_functions`: site -> the model's own function."""
    return TrackingContent(
        metrics=result.metrics,
        texts={} if result.genotype is None else {"genotype.json": result.genotype.to_json()},
        figures=partial(trial_figures, result, original_functions) if result.weights_over_time else None,
    )


def comparison_content(
    comparison: Comparison, trial: TrialResult, original_functions: Mapping[str, str]
) -> TrackingContent:
    """The content of the study's own run: mean test accuracy per variant, and the best trial's gap and genotype."""
    metrics = {f"test_accuracy/{name}": mean(variant.test_accuracies) for name, variant in comparison.variants.items()}
    metrics |= {name: trial.metrics[name] for name in ("gap", "derived_val_accuracy") if name in trial.metrics}
    texts = {"comparison.txt": str(comparison_table(comparison.to_dict()))}
    if trial.genotype is not None:
        texts["genotype.json"] = trial.genotype.to_json()
    return TrackingContent(
        metrics=metrics, texts=texts, figures=partial(comparison_figures, comparison, original_functions)
    )
