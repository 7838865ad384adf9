"""`outer.prune_by`: which values the pruner gets, in which direction, and which trials it stops."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from outer_standin import Standin, execute, quality, reproducible, study

from nasact.outer.data import load_study_data
from nasact.outer.optuna.storage import open_to_read
from nasact.outer.store import StudyDirectory
from nasact.results import Report
from nasact.study import Study, TrialSpec
from nasact.trial import run_trial


def intermediate_values(study: Study, root: Path) -> list[dict[int, float]]:
    """The values in Optuna's own file, by trial: step -> value."""
    with open_to_read(StudyDirectory.existing(root, study.name)) as database:
        assert database is not None
        return [dict(trial.intermediate_values) for trial in database.trials()]


def search_history(study: Study, root: Path, key: str) -> list[dict[str, Any]]:
    path = StudyDirectory.existing(root, study.name).trials / key / "result.json"
    reports = json.loads(path.read_text())["result"]["history"]
    return [report for report in reports if report["phase"] == "search"]


@pytest.mark.parametrize(("metric", "sign"), [("hessian_eigenvalue", -1), ("max_weight.act1", 1)])
def test_the_pruner_gets_the_metric_of_real_trials_negated_if_lower_is_better(
    metric: str, sign: int, tmp_path: Path
) -> None:
    task = {"dataset": "digits", "model": {"name": "mlp", "hidden": [6]}, "train_limit": 80}
    monitors = ["weights", {"name": "hessian", "every": 2, "examples": 16}]
    pruned_study = study(
        task=task,
        search={
            "strategy": {"name": "darts", "order": 1, "lr": {"low": 1e-3, "high": 1e-1, "log": True}},
            "epochs": 3,
            "warmup": 1,
            "monitors": monitors,
        },
        outer={"trials": 2, "pruner": "median", "prune_by": metric},
    )
    data = load_study_data(pruned_study.spec)
    records = execute(pruned_study, tmp_path, lambda spec, directory: run_trial(spec, data, directory=directory))
    assert [(record.status, record.reason) for record in records] == [("complete", None)] * 2
    for record, values in zip(records, intermediate_values(pruned_study, tmp_path), strict=True):
        reports = search_history(pruned_study, tmp_path, str(record.key))
        # steps count the epochs after the warm-up; the eigenvalue is measured after the second epoch only
        expected = {r["epoch"] - 1: sign * r["metrics"][metric] for r in reports[1:] if metric in r["metrics"]}
        assert values == expected
        assert list(expected) == ([1] if metric == "hessian_eigenvalue" else [1, 2])
        assert record.epochs == 4


class OneMetricStandin(Standin):
    """Trials that differ in the metric `name` only, which is measured after every second epoch."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def __call__(self, spec: TrialSpec, directory: Path) -> Any:
        reports, stop = super().__call__(spec, directory), None
        while True:
            try:
                report = reports.send(stop)
            except StopIteration as end:
                return end.value
            metrics = {"val_accuracy": 0.5}
            if report.epoch % 2 == 0:
                metrics[self.name] = quality(spec)
            stop = yield Report(report.phase, report.epoch, report.epochs, metrics)


@pytest.mark.parametrize(("metric", "sign", "seed"), [("identity_mass", 1, 1), ("max_weight", -1, 0)])
def test_the_median_pruner_stops_the_worse_half_in_either_direction(
    metric: str, sign: int, seed: int, tmp_path: Path
) -> None:
    pruned_study = study(seed=seed, outer={"trials": 9, "sampler": "random", "pruner": "median", "prune_by": metric})
    records = execute(pruned_study, tmp_path, OneMetricStandin(metric))
    values = [sign * quality(pruned_study.fill(record.params)) for record in records]
    stopped = [record.number for record in records if record.status == "pruned"]
    assert stopped
    for number, value in enumerate(values):
        before = [values[earlier] for earlier in range(number) if records[earlier].status == "complete"]
        assert (number in stopped) == (len(before) >= 5 and value > median(before)), number


def test_an_interrupted_study_prunes_by_its_metric_as_an_uninterrupted_one(tmp_path: Path) -> None:
    pruned_study = study(
        seed=1, outer={"trials": 8, "sampler": "random", "pruner": "median", "prune_by": "identity_mass"}
    )
    whole = execute(pruned_study, tmp_path / "whole", OneMetricStandin("identity_mass"))
    assert whole[-1].status == "pruned", "the second interruption has to hit a trial that is pruned"

    def interrupt(spec: TrialSpec, index: int) -> None:
        seen = tmp_path / f"{spec.key()}-{index}"
        if (spec.key(), index) in ((whole[0].key, 4), (whole[-1].key, 2)) and not seen.exists():
            seen.touch()
            raise KeyboardInterrupt

    for _ in range(2):
        standin = OneMetricStandin("identity_mass")
        standin.before_epoch = interrupt
        with pytest.raises(KeyboardInterrupt):
            execute(pruned_study, tmp_path / "cut", standin)
    assert reproducible(execute(pruned_study, tmp_path / "cut", OneMetricStandin("identity_mass"))) == reproducible(
        whole
    )
