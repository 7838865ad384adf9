"""The reports of a running trial and the result of a finished one, in forms that survive JSON. Runs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from nasact.supernet import Genotype
from nasact.training.loop import SEARCH_METRICS, WeightsOverTime
from nasact.trial_status import Status

Phase = Literal["search", "retrain"]


@dataclass(frozen=True)
class Report:
    """The metrics of one epoch of a trial; epochs count from 1 in each phase, up to `epochs`."""

    phase: Phase
    epoch: int
    epochs: int
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """The result of a trial. Accuracies are fractions; `weights_over_time` begins before the first epoch."""

    status: Status
    reason: str | None
    genotype: Genotype | None
    metrics: dict[str, float]
    history: list[dict[str, Any]]
    weights_over_time: WeightsOverTime
    spec: dict[str, Any]
    banks: dict[str, list[str]] = field(default_factory=dict)
    """Site -> the candidates that were searched there, in the order of `weights_over_time`."""
    collapse: dict[str, Any] | None = None
    """The collapse that a monitor detected, or None: `monitor`, `epoch`, `last_healthy_epoch`, `reason`; `action`
    (reported, stopped or rolled back); `rolled_back_to`, the epoch whose mixtures the genotype is derived from."""

    def to_dict(self) -> dict[str, Any]:
        genotype = None if self.genotype is None else self.genotype.to_dict()
        return {
            "status": self.status,
            "reason": self.reason,
            "genotype": genotype,
            "metrics": self.metrics,
            "history": self.history,
            "weights_over_time": self.weights_over_time,
            "spec": self.spec,
            "banks": self.banks,
            "collapse": self.collapse,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> TrialResult:
        genotype = document["genotype"]
        return cls(**{**document, "genotype": None if genotype is None else Genotype.from_dict(genotype)})

    def reports(self) -> Iterator[Report]:
        """The reports of the epochs in `history`."""
        return (Report(**report) for report in self.history)


def trial_metrics(
    history: Sequence[Report],
    *,
    alpha_moved: float,
    derivation: Mapping[str, float],
    collapse: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """The metrics of a trial as a whole.

    Metrics of the search are those of the epoch whose mixtures the genotype is derived from: the last epoch, unless
    the search was rolled back after a `collapse`. A monitor's metric of the whole network (without a site in its name)
    has the last value that was measured up to that epoch.
    """
    target = (collapse or {}).get("rolled_back_to")
    searched = [report for report in history if report.phase == "search" and report.epoch <= (target or report.epoch)]
    retrained = [report for report in history if report.phase == "retrain"]
    seconds = dict.fromkeys(("search", "retrain"), 0.0)
    for report in history:
        seconds[report.phase] += report.metrics["seconds"]
    metrics = {f"{phase}_seconds": value for phase, value in seconds.items()}
    metrics |= {f"derive_{name}": value for name, value in derivation.items()}
    metrics["seconds"] = sum(seconds.values()) + metrics.get("derive_seconds", 0.0)
    if searched:
        metrics["search_val_accuracy"] = searched[-1].metrics["val_accuracy"]
        metrics["entropy"] = searched[-1].metrics["entropy"]
        metrics["alpha_moved"] = alpha_moved
    for report in searched:
        metrics |= {
            name: value for name, value in report.metrics.items() if name not in SEARCH_METRICS and "." not in name
        }
    if collapse is not None:
        metrics["collapse_epoch"] = float(collapse["epoch"])
    if target is not None:
        metrics["rolled_back_to"] = float(target)
    if retrained:
        metrics["derived_val_accuracy"] = retrained[-1].metrics["val_accuracy"]
        if searched:
            metrics["gap"] = metrics["search_val_accuracy"] - metrics["derived_val_accuracy"]
    return metrics
