"""A new monitor is one registered record: listed, accepted by studies, measured in trials, without another edit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest
from click.testing import CliRunner

from nasact.cli.listing import list_group
from nasact.monitors import MONITORS, Collapse, MonitorContext
from nasact.monitors.base import EpochMetrics
from nasact.outer.data import load_study_data
from nasact.study import Study
from nasact.training.metrics import Direction
from nasact.trial import run_to_end


@dataclass(frozen=True, kw_only=True)
class LargestAlpha:
    name: ClassVar[str] = "largest_alpha"
    source: ClassVar[str] = "this test"
    summary: ClassVar[str] = "largest entry of alpha"
    cost: ClassVar[str] = "none"
    metrics: ClassVar[Mapping[str, Direction]] = {"largest_alpha": "high"}
    needs_precheck: ClassVar[bool] = False

    factor: float = 1.0

    def first_epoch(self) -> int:
        return 1

    def precheck(self, context: MonitorContext) -> None:
        pass

    def measure(self, context: MonitorContext) -> dict[str, float]:
        alphas = context.supernet.arch_parameters()
        return {"largest_alpha": self.factor * max(float(alpha.detach().max()) for alpha in alphas)}

    def detect_collapse(self, history: Sequence[EpochMetrics]) -> Collapse | None:
        return None

    def earliest_collapse(self, warmup: int) -> int | None:
        return None


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MONITORS, "_records", dict(MONITORS.items()))  # removes the record at the end
    MONITORS.register("largest_alpha", LargestAlpha)


def study(**search: object) -> Study:
    task = {"dataset": "digits", "model": {"name": "mlp", "hidden": [8]}, "train_limit": 100, "test_limit": 20}
    tree = {"task": task, "search_space": ["relu", "tanh"], "retrain": {"epochs": 1}}
    monitors = [{"name": "largest_alpha", "factor": 2.0}]
    outer = {"prune_by": "largest_alpha"}
    return Study.from_tree({**tree, "search": {"epochs": 2, "monitors": monitors, **search}, "outer": outer})


def test_a_new_monitor_is_listed_with_its_options_and_metrics() -> None:
    rows = json.loads(CliRunner().invoke(list_group, ["monitors", "--json"]).stdout)
    (row,) = [row for row in rows if row["name"] == "largest_alpha"]
    assert row["options"] == "factor=1.0"
    assert row["metrics"] == "largest_alpha (high is better)"
    assert row["summary"] == "largest entry of alpha"


def test_a_study_accepts_a_new_monitor_and_can_prune_by_its_metric() -> None:
    spec = study().spec
    assert MONITORS.build_all(spec.search.monitors) == (LargestAlpha(factor=2.0),)
    assert spec.outer.prune_by == "largest_alpha"


def test_what_a_new_monitor_measures_is_a_metric_of_the_trial() -> None:
    spec = study().spec
    result = run_to_end(spec, load_study_data(spec))
    measured = [report.metrics["largest_alpha"] for report in result.reports() if report.phase == "search"]
    assert len(measured) == 2
    assert result.status == "complete"
    assert result.metrics["largest_alpha"] == measured[-1]
