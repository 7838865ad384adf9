"""What a trial tells while it runs and how it ends, in forms that survive JSON. Runs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from nasact.supernet import Genotype
from nasact.training.loop import WeightsOverTime
from nasact.trial_status import Status

Phase = Literal["search", "retrain"]


@dataclass(frozen=True)
class Report:
    """What one epoch of a trial measured; epochs count from 1."""

    phase: Phase
    epoch: int
    epochs: int
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """How a trial ended. Accuracies are fractions; `weights_over_time` starts before the first epoch."""

    status: Status
    reason: str | None
    genotype: Genotype | None
    metrics: dict[str, float]
    history: list[dict[str, Any]]
    weights_over_time: WeightsOverTime
    spec: dict[str, Any]
    banks: dict[str, list[str]] = field(default_factory=dict)
    """The candidates that each site searched, in the order of `weights_over_time`."""
    collapse: dict[str, Any] | None = None
    """The collapse that a monitor detected: `monitor`, `epoch`, `last_healthy_epoch`, `reason`; `action` (reported,
    stopped or rolled back) and `rolled_back_to`, the epoch whose mixtures the genotype is derived from."""

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
        return (Report(**report) for report in self.history)


_OF_EVERY_EPOCH = ("train_loss", "val_loss", "val_accuracy", "entropy", "temperature", "seconds")


def trial_metrics(
    history: Sequence[Report],
    *,
    alpha_moved: float,
    derivation: Mapping[str, float],
    collapse: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """The numbers of a trial as a whole. Those of the search are of the epoch whose mixtures were derived from: the
    last one, unless a `collapse` made the search roll back. What monitors gave for the whole network has the value
    that was measured last up to there."""
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
            name: value for name, value in report.metrics.items() if name not in _OF_EVERY_EPOCH and "." not in name
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
