"""Monitors do not change a search, to the bit. A collapse ends it or rolls it back, also if the trial was killed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from nasact.errors import StudyError
from nasact.outer.preview import preview
from nasact.outer.run import run_study
from nasact.study import Study
from nasact.trial import run_trial

ALL = ["weights", {"name": "hessian", "every": 2, "examples": 32}, "discretisation"]
CONSTANT = {"start": 1.0, "end": None, "schedule": "constant"}
# the eigenvalue rises in this search from the first epoch on: compare windows of one epoch, one epoch apart
EAGER = {"name": "hessian", "every": 1, "examples": 32, "window": 1, "lag": 1, "start": 0, "factor": 1.05}


def collapsing(make_spec, on_collapse, **changes):
    search = {"monitors": ["weights", EAGER], "on_collapse": on_collapse, "epochs": 5, "temperature": CONSTANT}
    return make_spec(search={**search, **changes}, retrain={"epochs": 1})


def test_monitors_change_nothing_but_the_metrics(make_spec, load, driver) -> None:
    results = []
    for monitors in ([], ALL):
        spec = make_spec(search={"monitors": monitors, "warmup": 1}, retrain={"epochs": 1})
        results.append(driver(run_trial(spec, load(spec)))[1])
    without, with_all = results
    assert with_all.genotype.to_json() == without.genotype.to_json()
    assert with_all.weights_over_time == without.weights_over_time
    assert with_all.metrics["derived_val_accuracy"] == without.metrics["derived_val_accuracy"]
    for plain, monitored in zip(without.history, with_all.history, strict=True):
        common = {**monitored["metrics"], **plain["metrics"]}
        assert common == {**monitored["metrics"], "seconds": plain["metrics"]["seconds"]}
    searched = [report["metrics"] for report in with_all.history if report["phase"] == "search"]
    assert ["hessian_eigenvalue" in metrics for metrics in searched] == [False, True, False]
    assert {"entropy.act1", "max_weight.act2", "identity_mass", "discretisation_gap"} <= searched[0].keys()
    assert with_all.metrics["hessian_eigenvalue"] == searched[1]["hessian_eigenvalue"]
    assert with_all.metrics["discretisation_gap"] == searched[2]["discretisation_gap"]


def test_the_weights_are_monitored_by_default(spec) -> None:
    assert spec.to_tree()["search"]["monitors"] == [{"name": "weights"}]
    assert spec.to_tree()["search"]["on_collapse"] == "report"


@pytest.fixture(scope="module")
def reported(make_spec, load, driver):
    spec = collapsing(make_spec, "report")
    return driver(run_trial(spec, load(spec)))[1]


def test_a_collapse_is_reported_and_the_search_goes_on(reported) -> None:
    assert reported.collapse["action"] == "reported"
    assert reported.collapse["monitor"] == "hessian"
    assert 2 <= reported.collapse["epoch"] == reported.metrics["collapse_epoch"] <= 4, (
        "the other tests need later epochs"
    )
    assert sum(report["phase"] == "search" for report in reported.history) == 5
    assert "rolled_back_to" not in reported.metrics


def test_a_search_that_is_stopped_derives_from_its_last_epoch(make_spec, load, driver, reported) -> None:
    spec = collapsing(make_spec, "stop")
    _, result = driver(run_trial(spec, load(spec)))
    end = reported.collapse["epoch"]
    assert [report["epoch"] for report in result.history if report["phase"] == "search"] == list(range(1, end + 1))
    assert result.collapse == {**reported.collapse, "action": "stopped"}
    assert result.weights_over_time == {site: rows[: end + 1] for site, rows in reported.weights_over_time.items()}
    shorter = collapsing(make_spec, "report", epochs=end)
    assert driver(run_trial(shorter, load(shorter)))[1].genotype == result.genotype


def test_a_search_that_is_rolled_back_derives_from_the_best_healthy_epoch(make_spec, load, driver, reported) -> None:
    spec = collapsing(make_spec, "roll_back")
    _, result = driver(run_trial(spec, load(spec)))
    history = [report["metrics"] for report in reported.history]
    healthy = history[: reported.collapse["last_healthy_epoch"]]
    best = max(range(len(healthy)), key=lambda index: (healthy[index]["val_accuracy"], -index)) + 1
    assert result.collapse == {**reported.collapse, "action": "rolled back", "rolled_back_to": best}
    assert result.metrics["rolled_back_to"] == best < result.collapse["epoch"] == result.metrics["collapse_epoch"]
    assert result.metrics["search_val_accuracy"] == history[best - 1]["val_accuracy"]
    assert result.metrics["entropy"] == history[best - 1]["entropy"]
    for site, rows in result.weights_over_time.items():
        assert rows[-1] == rows[best] == reported.weights_over_time[site][best]
    shorter = collapsing(make_spec, "report", epochs=best)
    assert driver(run_trial(shorter, load(shorter)))[1].genotype == result.genotype


def test_a_trial_that_is_pruned_at_its_collapse_has_not_rolled_back(make_spec, load, driver, reported) -> None:
    spec = collapsing(make_spec, "roll_back")
    _, result = driver(run_trial(spec, load(spec)), stop_after=reported.collapse["epoch"])
    assert (result.status, result.collapse["action"], result.collapse["rolled_back_to"]) == ("pruned", "reported", None)
    assert "rolled_back_to" not in result.metrics


@pytest.mark.parametrize("on_collapse", ["stop", "roll_back"])
def test_an_interrupted_trial_that_collapses_ends_as_an_uninterrupted_one(
    on_collapse: str, make_spec, load, driver, facts, reported, tmp_path: Path
) -> None:
    spec = collapsing(make_spec, on_collapse)
    data = load(spec)
    _, whole = driver(run_trial(spec, data))
    end = reported.collapse["epoch"]
    assert len(whole.history) == end + 1
    reports = []
    for count in (1, end, end + 1):  # interrupted after its first epoch, at the collapse, and in its retraining
        run = run_trial(spec, data, directory=tmp_path)
        reports = [next(run) for _ in range(count)]
        run.close()
    assert reports[-1].phase == "retrain"
    _, continued = driver(run_trial(spec, data, directory=tmp_path))
    assert facts(continued) == facts(whole)
    assert driver(run_trial(spec, data, directory=tmp_path))[1].to_dict() == continued.to_dict()


class DifferentiableOnce(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return grad * 2


class NotTwiceDifferentiable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.last = nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10)

    def forward(self, x):
        return self.last(DifferentiableOnce.apply(self.act(self.first(x.flatten(1)))))


def not_twice_differentiable(*, classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    assert (classes, input_shape) == (10, (1, 8, 8))
    return NotTwiceDifferentiable()


REFUSED = "monitor 'hessian' cannot measure this model: it cannot be differentiated twice"


@pytest.fixture
def refused_study(monkeypatch, spec) -> Study:
    monkeypatch.setattr("nasact.trial.search", lambda *arguments, **options: 1 / 0)
    tree = spec.to_tree()
    task = {**tree["task"], "model": f"{__name__}:not_twice_differentiable"}
    search = {**tree["search"], "monitors": [{"name": "hessian", "every": 1}]}
    return Study.from_tree({**tree, "task": task, "search": search})


def test_a_model_that_cannot_be_differentiated_twice_is_refused_before_its_first_epoch(refused_study, load) -> None:
    with pytest.raises(StudyError, match=REFUSED):
        next(run_trial(refused_study.spec, load(refused_study.spec)))


def test_a_check_and_a_study_refuse_it_with_the_same_line_before_any_trial(refused_study, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=REFUSED):
        preview(refused_study)
    with pytest.raises(StudyError, match=REFUSED):
        run_study(refused_study, root=tmp_path)
    assert not list(tmp_path.glob("runs/*/trials/*"))


def test_a_site_that_the_model_does_not_have_is_refused_as_a_metric_to_prune_by(spec, tmp_path: Path) -> None:
    study = Study.from_tree({**spec.to_tree(), "outer": {"prune_by": "entropy.act3"}})
    message = r"outer.prune_by: 'entropy.act3' names a site that the model does not have. Did you mean 'entropy.act"
    for refuse in (lambda: preview(study), lambda: run_study(study, root=tmp_path)):
        with pytest.raises(StudyError, match=message):
            refuse()
