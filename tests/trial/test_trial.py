"""One trial: a function of (spec, data), whatever runs around it and however often it is interrupted."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import nasact.trial
from nasact.errors import StoreError
from nasact.results import Report, TrialResult
from nasact.study import TrialSpec
from nasact.supernet import Genotype
from nasact.tasks import Data, Split
from nasact.training.loop import Epoch
from nasact.trial import read_result, run_to_end, run_trial, trial_key

Driver = Callable[..., tuple[list[Report], TrialResult]]
Facts = Callable[[TrialResult], dict[str, Any]]


@pytest.fixture(scope="module")
def expected(spec: TrialSpec, load: Callable[[TrialSpec], Data], driver: Driver) -> tuple[list[Report], TrialResult]:
    """The trial without a directory and without interruptions."""
    return driver(run_trial(spec, load(spec)))


def test_a_trial_searches_derives_retrains_and_measures(
    expected: tuple[list[Report], TrialResult], spec: TrialSpec
) -> None:
    reports, result = expected
    assert result.status == "complete"
    assert result.reason is None
    assert [(report.phase, report.epoch, report.epochs) for report in reports] == [
        *(("search", epoch, 3) for epoch in (1, 2, 3)),
        *(("retrain", epoch, 4) for epoch in (1, 2, 3, 4)),
    ]
    metrics = result.metrics
    assert metrics["search_val_accuracy"] == reports[2].metrics["val_accuracy"]
    assert metrics["derived_val_accuracy"] == reports[-1].metrics["val_accuracy"] > 0.5
    assert metrics["gap"] == pytest.approx(metrics["search_val_accuracy"] - metrics["derived_val_accuracy"])
    assert metrics["alpha_moved"] > 0
    assert 0 <= metrics["entropy"] <= math.log(4)
    parts = ("search_seconds", "retrain_seconds", "derive_seconds")
    assert 0 < metrics["seconds"] == pytest.approx(sum(metrics[part] for part in parts))
    assert isinstance(result.genotype, Genotype)
    assert len(result.genotype.sites) == len(result.weights_over_time) == 2
    assert {len(rows) for rows in result.weights_over_time.values()} == {1 + spec.search.epochs}
    assert result.spec == spec.to_tree()


def test_a_trial_never_opens_the_test_set(spec: TrialSpec, data: Data, driver: Driver) -> None:
    driver(run_trial(spec, data))
    assert data.test.openings == 0


@pytest.mark.parametrize(
    "method", ["magnitude", "refit", {"name": "perturbation", "epochs": 1}, {"name": "validated", "epochs": 2}], ids=str
)
def test_a_trial_derives_as_its_study_says_and_never_opens_the_test_set(
    method: str | dict[str, Any], make_spec: Callable[..., TrialSpec], data: Data, driver: Driver, facts: Facts
) -> None:
    spec = make_spec(derive={"method": method}, search={"epochs": 1, "temperature": 1.0}, retrain={"epochs": 1})
    _, result = driver(run_trial(spec, data))
    assert (result.status, result.reason) == ("complete", None)
    assert {"derive_seconds", "derive_networks", "derive_epochs"} <= result.metrics.keys()
    assert (result.metrics["derive_networks"] > 0) == (spec.derive.method.name == "validated")
    assert data.test.openings == 0
    assert facts(driver(run_trial(spec, data))[1]) == facts(result)


def test_a_finished_derivation_is_not_repeated(
    make_spec: Callable[..., TrialSpec], data: Data, driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(search={"epochs": 1, "temperature": 1.0}, retrain={"epochs": 1})
    monkeypatch.setattr("nasact.trial._retrain_phase", lambda trial: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        driver(run_trial(spec, data, directory=tmp_path))
    monkeypatch.undo()
    monkeypatch.setattr("nasact.derivation.derive_by", lambda *arguments: 1 / 0)
    _, result = driver(run_trial(spec, data, directory=tmp_path))
    assert result.status == "complete"
    assert result.metrics["derive_networks"] == 0


def test_a_result_survives_json(expected: tuple[list[Report], TrialResult]) -> None:
    result = expected[1]
    again = TrialResult.from_dict(json.loads(json.dumps(result.to_dict(), allow_nan=False)))
    assert again.to_dict() == result.to_dict()
    assert again.genotype == result.genotype


def test_the_same_seed_gives_the_same_bits_whatever_runs_around_it(
    spec: TrialSpec, data: Data, driver: Driver, expected: tuple[list[Report], TrialResult], facts: Facts
) -> None:
    torch.manual_seed(12345)
    _, result = driver(run_trial(spec, data), between=lambda: torch.manual_seed(int(torch.randint(10**6, ()))))
    assert facts(result) == facts(expected[1])


def test_another_seed_gives_other_numbers(
    make_spec: Callable[..., TrialSpec], data: Data, driver: Driver, expected: tuple[list[Report], TrialResult]
) -> None:
    _, result = driver(run_trial(make_spec(seed=4), data))
    assert result.weights_over_time != expected[1].weights_over_time


@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_a_trial_that_is_stopped_is_pruned_and_can_be_continued(
    stop_after: int,
    spec: TrialSpec,
    data: Data,
    driver: Driver,
    facts: Facts,
    expected: tuple[list[Report], TrialResult],
    tmp_path: Path,
) -> None:
    reports, pruned = driver(run_trial(spec, data, directory=tmp_path), stop_after=stop_after)
    assert pruned.status == "pruned"
    assert len(reports) == len(pruned.history) == stop_after
    assert "gap" not in pruned.metrics or stop_after > 3

    reports, result = driver(run_trial(spec, data, directory=tmp_path))
    assert facts(result) == facts(expected[1])
    assert len(reports) == 7


def test_a_finished_trial_is_returned_without_training(
    spec: TrialSpec, data: Data, driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_reports, first = driver(run_trial(spec, data, directory=tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.json"]
    monkeypatch.delattr("nasact.trial.search")
    monkeypatch.delattr("nasact.trial.fit")
    reports, again = driver(run_trial(spec, data, directory=tmp_path))
    assert again.to_dict() == first.to_dict()
    assert reports == first_reports
    assert run_to_end(spec, data, directory=tmp_path).to_dict() == first.to_dict()


def test_the_result_of_a_finished_trial_is_read_from_its_directory(
    spec: TrialSpec, make_spec: Callable[..., TrialSpec], data: Data, driver: Driver, tmp_path: Path
) -> None:
    assert read_result(spec, data, tmp_path) is None
    driver(run_trial(spec, data, directory=tmp_path), stop_after=2)
    assert read_result(spec, data, tmp_path) is None, "a pruned trial can continue"
    result = run_to_end(spec, data, directory=tmp_path)
    assert read_result(spec, data, tmp_path) == result
    assert read_result(make_spec(seed=4), data, tmp_path) is None
    assert read_result(spec, data, None) is None


def test_the_key_of_a_trial_depends_on_its_spec_and_its_data(
    spec: TrialSpec, make_spec: Callable[..., TrialSpec], data: Data
) -> None:
    other_data = Data(
        name=data.name,
        train=Split(data.train.x + 1, data.train.y),
        val=data.val,
        classes=data.classes,
        input_shape=data.input_shape,
        test=data.test,
    )
    keys = {
        trial_key(spec, data),
        trial_key(spec, other_data),
        trial_key(make_spec(seed=4), data),
        trial_key(make_spec(retrain={"epochs": 5}), data),
    }
    assert len(keys) == 4
    assert trial_key(make_spec(name="other", compare={"seeds": 9}, outer={"trials": 3}), data) == trial_key(spec, data)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1, "key": "x"}', '{"schema": 99, "key": "x"}'])
def test_a_result_that_cannot_be_read_is_computed_again(
    content: str, spec: TrialSpec, data: Data, driver: Driver, tmp_path: Path
) -> None:
    (tmp_path / "result.json").write_text(content)
    reports, result = driver(run_trial(spec, data, directory=tmp_path), stop_after=1)
    assert (result.status, len(reports)) == ("pruned", 1)


def test_a_trial_that_diverges_has_failed_with_its_reason(
    make_spec: Callable[..., TrialSpec], data: Data, driver: Driver, tmp_path: Path
) -> None:
    spec = make_spec(search={"optimiser": {"name": "sgd", "lr": 1e30}}, search_space=["relu", "identity"])
    reports, result = driver(run_trial(spec, data, directory=tmp_path))
    assert result.status == "failed"
    assert result.reason is not None
    assert result.reason.startswith("search epoch 1")
    assert "\n" not in result.reason
    assert result.genotype is None
    assert reports == []
    assert json.loads((tmp_path / "result.json").read_text())["result"]["status"] == "failed"
    again = driver(run_trial(spec, data, directory=tmp_path))
    assert again[1].to_dict() == result.to_dict()


def test_a_trial_that_diverges_in_retraining_keeps_its_genotype(
    make_spec: Callable[..., TrialSpec], data: Data, driver: Driver
) -> None:
    spec = make_spec(retrain={"optimiser": {"name": "sgd", "lr": 1e30}}, search_space=["relu", "identity"])
    _, result = driver(run_trial(spec, data))
    assert result.status == "failed"
    assert result.reason is not None
    assert result.reason.startswith("retrain epoch 1")
    assert result.genotype is not None
    assert "search_val_accuracy" in result.metrics
    assert "gap" not in result.metrics


def test_a_full_disk_raises_one_line_and_loses_no_computed_epoch(
    spec: TrialSpec,
    data: Data,
    driver: Driver,
    facts: Facts,
    expected: tuple[list[Report], TrialResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = run_trial(spec, data, directory=tmp_path)
    for _ in range(4):
        next(run)
    # /dev/full, which refuses every write, takes the place of the next checkpoint
    (tmp_path / f".checkpoint.pt.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(StoreError, match=r"checkpoint\.pt: could not be written: No space left on device") as raised:
        next(run)
    assert "\n" not in str(raised.value)

    trained: list[int] = []
    monkeypatch.setattr("nasact.trial.fit", counting(nasact.trial.fit, trained))
    reports, result = driver(run_trial(spec, data, directory=tmp_path))
    assert len(reports) == 7
    assert trained == [2, 3, 4]
    assert facts(result) == facts(expected[1])


def counting(fit: Callable[..., Iterator[Epoch]], trained: list[int]) -> Callable[..., Iterator[Epoch]]:
    """`fit` that appends each epoch that it trains to `trained`."""

    def counted(*arguments: Any, **options: Any) -> Iterator[Epoch]:
        for epoch in fit(*arguments, **options):
            trained.append(epoch.epoch)
            yield epoch

    return counted


@pytest.mark.parametrize(
    "search",
    [
        {"strategy": {"name": "joint"}, "level": "neuron"},
        {"strategy": {"name": "darts", "order": 1}, "normaliser": "affine", "init": "original"},
        {"strategy": {"name": "darts", "order": 2}, "normaliser": "gumbel", "level": "channel"},
        {"strategy": {"name": "unrolled"}, "normaliser": "convex"},
    ],
    ids=str,
)
@pytest.mark.parametrize("top_k", [1, 2, "all"])
def test_every_kind_of_search_ends_in_a_network(
    search: dict[str, Any], top_k: int | str, make_spec: Callable[..., TrialSpec], data: Data, driver: Driver
) -> None:
    spec = make_spec(search={**search, "epochs": 1, "temperature": 1.0}, derive={"top_k": top_k}, retrain={"epochs": 1})
    _, result = driver(run_trial(spec, data))
    assert (result.status, result.reason) == ("complete", None)
    assert result.genotype is not None
    assert result.genotype.top_k == top_k
    assert {len(row) for rows in result.weights_over_time.values() for row in rows} == {4}
