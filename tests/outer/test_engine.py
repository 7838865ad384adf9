"""The engine `optuna` on trials that cost nothing: what is counted, pruned, reused, refused and optuna_study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from outer_standin import Standin, execute, quality, shown, study

from nasact.errors import Divergence, StoreError, StudyError
from nasact.kinds import KINDS
from nasact.outer.callbacks import NullCallbacks
from nasact.outer.optuna import read_trials
from nasact.outer.records import ENGINES, TrialRecord, best_of, counts
from nasact.outer.store import StudyDirectory
from nasact.study import TrialSpec


class Heard(NullCallbacks):
    def __init__(self) -> None:
        self.messages: list[str] = []
        self.started: list[int] = []
        self.finished: list[tuple[int, str]] = []
        self.totals: list[tuple[int, int, tuple[float, int] | None]] = []

    def study_started(self, total: int, *, finished: int = 0, best: tuple[float, int] | None = None) -> None:
        self.totals.append((total, finished, best))

    def trial_started(self, number: int, params: Any) -> None:
        self.started.append(number)

    def trial_finished(self, number: int, result: Any) -> None:
        self.finished.append((number, result.status))

    def message(self, text: str) -> None:
        self.messages.append(text)


def test_the_registry_holds_the_optuna_engine() -> None:
    assert ENGINES.names() == ("optuna",)
    assert ENGINES.names() == KINDS["engine"].names(), "what a study may name is what there is"


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("pruner", ["hyperband", "median", "none"])
def test_every_sampler_and_pruner_finishes_the_trials_it_was_given(sampler: str, pruner: str, tmp_path: Path) -> None:
    made = study(outer__sampler=sampler, outer__pruner=pruner, outer__trials=7)
    heard = Heard()
    records = execute(made, tmp_path, Standin(), heard)
    assert [record.number for record in records] == list(range(7))
    assert {record.status for record in records} <= {"complete", "pruned"}
    assert len(heard.finished) == 7
    for record in records:
        if record.status == "complete":
            assert record.value == quality(made.fill(record.params))
    assert any(record.status == "pruned" for record in records) or pruner != "hyperband"
    assert all(record.status == "complete" for record in records) or pruner != "none"


def test_the_pruner_hears_nothing_of_the_warm_up(tmp_path: Path) -> None:
    made = study(search__epochs=8, search__warmup=4, outer__trials=9)
    standin = Standin()
    records = execute(made, tmp_path, standin)
    worked = {key: max(index for one, index in standin.worked if one == key) for key, _ in standin.worked}
    pruned = [worked[str(record.key)] for record in records if record.status == "pruned"]
    assert pruned
    assert min(pruned) > 4


def test_trials_differ_from_each_other_and_studies_with_other_seeds_differ(tmp_path: Path) -> None:
    one = execute(study(outer__trials=5, outer__sampler="random"), tmp_path / "a", Standin())
    two = execute(study(outer__trials=5, outer__sampler="random", seed=1), tmp_path / "b", Standin())
    again = execute(study(outer__trials=5, outer__sampler="random"), tmp_path / "c", Standin())
    lrs = [record.params["search.strategy.lr"] for record in one]
    assert len(set(lrs)) == 5
    assert not set(lrs) & {record.params["search.strategy.lr"] for record in two}
    assert shown(again) == shown(one)


def test_running_a_finished_study_again_trains_nothing(tmp_path: Path) -> None:
    first = execute(study(outer__trials=4), tmp_path, Standin())
    standin, heard = Standin(), Heard()
    assert shown(execute(study(outer__trials=4), tmp_path, standin, heard)) == shown(first)
    assert standin.worked == []
    assert heard.started == []
    best = best_of(first, "standin")
    assert heard.totals == [(4, 4, (best.value, best.number))]


def test_raising_the_number_of_trials_continues_as_if_it_had_been_that_number_at_once(tmp_path: Path) -> None:
    execute(study(outer__trials=5), tmp_path / "a", Standin())
    continued = execute(study(outer__trials=11), tmp_path / "a", Standin())
    at_once = execute(study(outer__trials=11), tmp_path / "b", Standin())
    assert shown(continued) == shown(at_once)


def test_a_configuration_that_completed_is_not_trained_again(tmp_path: Path) -> None:
    # four functions of which any three or more: with `min` most draws are repaired to the same set
    made = study(
        search={"epochs": 2},
        search_space={"subset": ["relu", "tanh", "identity", "sigmoid"], "min": 4},
        outer={"trials": 6, "sampler": "random", "pruner": "none"},
    )
    standin = Standin()
    records = execute(made, tmp_path, standin)
    assert [record.status for record in records] == ["complete"] * 6
    assert [record.reused_from for record in records] == [None, 0, 0, 0, 0, 0]
    assert len({record.value for record in records}) == 1
    assert len(standin.worked) == 2 + 1
    assert counts(records) == {"complete": 6, "pruned": 0, "failed": 0, "running": 0, "reused": 5}


def test_grid_visits_every_point_once_and_stops(tmp_path: Path) -> None:
    made = study(
        search={
            "epochs": 2,
            "batch_size": {"choice": [16, 32]},
            "strategy": {"name": "darts", "order": 1, "lr": {"low": 1e-3, "high": 1e-1, "log": True, "points": 3}},
        },
        outer={"trials": 50, "sampler": "grid", "pruner": "none"},
    )
    heard = Heard()
    records = execute(made, tmp_path, Standin(), heard)
    points = {(record.params["search.batch_size"], record.params["search.strategy.lr"]) for record in records}
    assert len(records) == len(points) == 6
    assert sorted({lr for _, lr in points}) == pytest.approx([1e-3, 1e-2, 1e-1])
    assert heard.messages == ["the grid has 6 points: 6 trials say it all"]


def test_a_grid_larger_than_the_number_of_trials_says_so(tmp_path: Path) -> None:
    made = study(
        search={"epochs": 2, "batch_size": {"low": 8, "high": 64, "step": 8}},
        outer={"trials": 3, "sampler": "grid", "pruner": "none"},
    )
    heard = Heard()
    few = execute(made, tmp_path / "a", Standin(), heard)
    assert heard.messages == ["the grid has 8 points: outer.trials lets 3 of them run"]
    assert len({record.params["search.batch_size"] for record in few}) == 3


def test_a_study_without_a_domain_runs_one_trial_and_says_so(tmp_path: Path) -> None:
    heard = Heard()
    made = study(search={"epochs": 2}, outer={"trials": 20})
    assert [record.params for record in execute(made, tmp_path, Standin(), heard)] == [{}]
    assert heard.messages == ["the study has no domain to search: one trial says it all"]


def test_a_trial_that_diverges_fails_with_its_reason_and_the_study_goes_on(tmp_path: Path) -> None:
    def diverge(spec: TrialSpec, index: int) -> None:
        if spec.search.batch_size == 16 and index == 2:
            raise Divergence("search epoch 2, training loss: nan")
        if spec.search.batch_size == 32 and index == 3:
            raise RuntimeError("out of memory")

    heard = Heard()
    records = execute(study(outer__trials=10, outer__pruner="none"), tmp_path, Standin(at=diverge), heard)
    reasons = {
        16: "search epoch 2, training loss: nan",
        32: "RuntimeError: out of memory",
        64: None,
    }
    assert {record.params["search.batch_size"] for record in records} == set(reasons)
    for record in records:
        assert record.reason == reasons[record.params["search.batch_size"]]
        assert (record.status == "failed") == (record.reason is not None)
    assert heard.finished == [(record.number, record.status) for record in records]
    failed = next(record for record in records if record.params["search.batch_size"] == 32)
    assert failed.key
    assert "RuntimeError" in (tmp_path / "runs/standin/trials" / failed.key / "error.txt").read_text()
    assert best_of(records, "standin").params["search.batch_size"] == 64


def test_a_value_that_is_not_a_number_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outer_standin.quality", lambda spec: float("nan"))
    records = execute(study(outer__trials=2, outer__pruner="none"), tmp_path, Standin())
    assert [(record.status, record.reason) for record in records] == [("failed", "derived_val_accuracy is nan")] * 2
    with pytest.raises(StudyError, match="none of its 2 trials completed: 2 x derived_val_accuracy is nan"):
        best_of(records, "standin")


def test_interrupting_leaves_the_trial_to_be_continued(tmp_path: Path) -> None:
    at_once = execute(study(outer__trials=8), tmp_path / "b", Standin())

    def interrupt(spec: TrialSpec, index: int) -> None:
        if len(interrupted.worked) == 13:
            raise KeyboardInterrupt

    interrupted = Standin(at=interrupt)
    with pytest.raises(KeyboardInterrupt):
        execute(study(outer__trials=8), tmp_path / "a", interrupted)
    left = read_trials(StudyDirectory.existing(tmp_path / "a", "standin"))
    assert [record.status for record in left].count("running") == 1
    heard, standin = Heard(), Standin()
    assert shown(execute(study(outer__trials=8), tmp_path / "a", standin, heard)) == shown(at_once)
    assert len(heard.messages) == 1
    assert heard.messages[0].startswith(f"trial {left[-1].number} was interrupted: continuing it after epoch")
    assert not set(standin.worked) & set(interrupted.worked)


@pytest.mark.parametrize("status", ["pruned", "complete"])
def test_a_trial_interrupted_after_its_end_but_before_that_was_stored_ends_the_same(
    status: str, tmp_path: Path
) -> None:
    """The pruner has spoken and stored that it has: asked again, Hyperband would answer for the next rung."""

    class Interrupting(Heard):
        def trial_finished(self, number: int, result: Any) -> None:
            if result.status == status and number > 2:
                raise KeyboardInterrupt

    made = study(outer__trials=9)
    at_once = execute(made, tmp_path / "b", Standin())
    with pytest.raises(KeyboardInterrupt):
        execute(made, tmp_path / "a", Standin(), Interrupting())
    standin = Standin()
    assert shown(execute(made, tmp_path / "a", standin)) == shown(at_once)


def test_a_trial_that_kills_its_process_three_times_fails(tmp_path: Path) -> None:
    """As after SIGKILL: the process is gone before anything can be put right."""
    made = study(outer__trials=2, outer__pruner="none")
    with StudyDirectory.open_for(made, tmp_path) as store:
        from nasact.outer.optuna.storage import opened

        with opened(store, made) as optuna_study:
            trial = optuna_study.ask()
            trial.set_user_attr("attempts", 3)
    records = execute(made, tmp_path, Standin())
    assert [record.status for record in records] == ["failed", "complete"]
    assert records[0].reason == "the process was killed 3 times after epoch 0 of this trial"


def test_a_full_disk_stops_the_study_and_leaves_the_trial_to_be_continued(tmp_path: Path) -> None:
    def full(spec: TrialSpec, index: int) -> None:
        if index == 3:
            raise OSError(28, "No space left on device")

    made = study(outer__trials=2, outer__pruner="none")
    for _ in range(5):
        with pytest.raises(StoreError, match="No space left on device"):
            execute(made, tmp_path, Standin(at=full))
    assert [record.status for record in execute(made, tmp_path, Standin())] == ["complete"] * 2


def test_the_best_trial_is_the_earliest_among_equals() -> None:
    records = [
        TrialRecord(number=0, status="failed", reason="x"),
        TrialRecord(number=1, status="complete", value=0.5),
        TrialRecord(number=2, status="complete", value=0.9),
        TrialRecord(number=3, status="complete", value=0.9),
        TrialRecord(number=4, status="pruned"),
    ]
    assert best_of(records, "s").number == 2
