"""What every engine does: it counts, prunes, reuses, refuses and continues trials. The trials here cost nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from outer_standin import (
    RecordingCallbacks,
    Standin,
    execute,
    locked_by_another_process,
    quality,
    read,
    reproducible,
    run_killer,
)

from nasact.errors import Divergence, StoreError, StudyError
from nasact.kinds import KINDS
from nasact.outer.engines import ENGINES
from nasact.outer.records import TrialRecord, best_of, counts
from nasact.outer.store import StudyDirectory
from nasact.study import Study, TrialSpec

MakeStudy = Callable[..., Study]


def test_the_suite_covers_the_registered_engines() -> None:
    assert len(ENGINES) >= 1
    assert "optuna" in ENGINES


def test_a_study_accepts_exactly_the_registered_engines() -> None:
    assert set(KINDS["engine"].names()) == set(ENGINES.names())


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("pruner", ["hyperband", "median", "none"])
def test_every_sampler_and_pruner_finishes_the_planned_trials(
    sampler: str, pruner: str, make_study: MakeStudy, tmp_path: Path
) -> None:
    study = make_study(outer__sampler=sampler, outer__pruner=pruner, outer__trials=7)
    callbacks = RecordingCallbacks()
    records = execute(study, tmp_path, Standin(), callbacks)
    assert [record.number for record in records] == list(range(7))
    assert {record.status for record in records} <= {"complete", "pruned"}
    assert len(callbacks.finished) == 7
    for record in records:
        if record.status == "complete":
            assert record.value == quality(study.fill(record.params))
    assert any(record.status == "pruned" for record in records) or pruner != "hyperband"
    assert all(record.status == "complete" for record in records) or pruner != "none"


def test_no_trial_is_pruned_in_its_warmup(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(search__epochs=8, search__warmup=4, outer__trials=9)
    standin = Standin()
    records = execute(study, tmp_path, standin)
    last_epoch = {key: max(epoch for of, epoch in standin.computed if of == key) for key, _ in standin.computed}
    pruned = [last_epoch[str(record.key)] for record in records if record.status == "pruned"]
    assert pruned
    assert min(pruned) > 4


def test_trials_differ_from_each_other_and_studies_with_other_seeds_differ(
    make_study: MakeStudy, tmp_path: Path
) -> None:
    first = execute(make_study(outer__trials=5, outer__sampler="random"), tmp_path / "a", Standin())
    other_seed = execute(make_study(outer__trials=5, outer__sampler="random", seed=1), tmp_path / "b", Standin())
    repeated = execute(make_study(outer__trials=5, outer__sampler="random"), tmp_path / "c", Standin())
    lrs = [record.params["search.strategy.lr"] for record in first]
    assert len(set(lrs)) == 5
    assert not set(lrs) & {record.params["search.strategy.lr"] for record in other_seed}
    assert reproducible(repeated) == reproducible(first)


def test_running_a_finished_study_again_trains_nothing(make_study: MakeStudy, tmp_path: Path) -> None:
    first = execute(make_study(outer__trials=4), tmp_path, Standin())
    standin, callbacks = Standin(), RecordingCallbacks()
    again = execute(make_study(outer__trials=4), tmp_path, standin, callbacks)
    assert reproducible(again) == reproducible(first)
    assert standin.computed == []
    assert callbacks.started == []
    best = best_of(first, "standin")
    assert callbacks.totals == [(4, 4, (best.value, best.number))]


def test_raising_the_number_of_trials_continues_as_if_it_had_been_that_number_at_once(
    make_study: MakeStudy, tmp_path: Path
) -> None:
    execute(make_study(outer__trials=5), tmp_path / "a", Standin())
    continued = execute(make_study(outer__trials=11), tmp_path / "a", Standin())
    at_once = execute(make_study(outer__trials=11), tmp_path / "b", Standin())
    assert reproducible(continued) == reproducible(at_once)


def test_a_configuration_that_completed_is_not_trained_again(make_study: MakeStudy, tmp_path: Path) -> None:
    # `min: 4` of four functions repairs every draw to the same set
    study = make_study(
        search={"epochs": 2},
        search_space={"subset": ["relu", "tanh", "identity", "sigmoid"], "min": 4},
        outer={"trials": 6, "sampler": "random", "pruner": "none"},
    )
    standin = Standin()
    records = execute(study, tmp_path, standin)
    assert [record.status for record in records] == ["complete"] * 6
    assert [record.reused_from for record in records] == [None, 0, 0, 0, 0, 0]
    assert len({record.value for record in records}) == 1
    assert len(standin.computed) == 2 + 1
    assert counts(records) == {"complete": 6, "pruned": 0, "failed": 0, "running": 0, "reused": 5}


def test_grid_visits_every_point_once_and_stops(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(
        search={
            "epochs": 2,
            "batch_size": {"choice": [16, 32]},
            "strategy": {"name": "darts", "order": 1, "lr": {"low": 1e-3, "high": 1e-1, "log": True, "points": 3}},
        },
        outer={"trials": 50, "sampler": "grid", "pruner": "none"},
    )
    callbacks = RecordingCallbacks()
    records = execute(study, tmp_path, Standin(), callbacks)
    points = {(record.params["search.batch_size"], record.params["search.strategy.lr"]) for record in records}
    assert len(records) == len(points) == 6
    assert sorted({lr for _, lr in points}) == pytest.approx([1e-3, 1e-2, 1e-1])
    assert callbacks.messages == ["the grid has 6 points: running 6 trials (outer.trials is 50)"]


def test_a_grid_larger_than_the_number_of_trials_is_reported(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(
        search={"epochs": 2, "batch_size": {"low": 8, "high": 64, "step": 8}},
        outer={"trials": 3, "sampler": "grid", "pruner": "none"},
    )
    callbacks = RecordingCallbacks()
    records = execute(study, tmp_path, Standin(), callbacks)
    assert callbacks.messages == ["the grid has 8 points: running 3 of them (outer.trials is 3)"]
    assert len({record.params["search.batch_size"] for record in records}) == 3


def test_a_study_without_a_domain_runs_one_trial_and_reports_that(make_study: MakeStudy, tmp_path: Path) -> None:
    study, callbacks = make_study(search={"epochs": 2}, outer={"trials": 20}), RecordingCallbacks()
    assert [record.params for record in execute(study, tmp_path, Standin(), callbacks)] == [{}]
    assert callbacks.messages == ["no search domains: running one trial (outer.trials is 20)"]


def test_a_trial_that_diverges_fails_with_its_reason_and_the_study_goes_on(
    make_study: MakeStudy, tmp_path: Path
) -> None:
    def diverge(spec: TrialSpec, epoch: int) -> None:
        if spec.search.batch_size == 16 and epoch == 2:
            raise Divergence("search epoch 2, training loss: nan")
        if spec.search.batch_size == 32 and epoch == 3:
            raise RuntimeError("out of memory")

    callbacks = RecordingCallbacks()
    study = make_study(outer__trials=10, outer__pruner="none")
    records = execute(study, tmp_path, Standin(before_epoch=diverge), callbacks)
    reasons = {
        16: "search epoch 2, training loss: nan",
        32: "RuntimeError: out of memory",
        64: None,
    }
    assert {record.params["search.batch_size"] for record in records} == set(reasons)
    for record in records:
        assert record.reason == reasons[record.params["search.batch_size"]]
        assert (record.status == "failed") == (record.reason is not None)
    assert callbacks.finished == [(record.number, record.status) for record in records]
    failed = next(record for record in records if record.params["search.batch_size"] == 32)
    assert failed.key
    assert "RuntimeError" in (tmp_path / "runs/standin/trials" / failed.key / "error.txt").read_text()
    assert best_of(records, "standin").params["search.batch_size"] == 64


def test_a_value_that_is_not_a_number_is_a_failure(
    make_study: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outer_standin.quality", lambda spec: float("nan"))
    records = execute(make_study(outer__trials=2, outer__pruner="none"), tmp_path, Standin())
    assert [(record.status, record.reason) for record in records] == [("failed", "derived_val_accuracy is nan")] * 2
    with pytest.raises(StudyError, match="none of its 2 trials completed: 2 x derived_val_accuracy is nan"):
        best_of(records, "standin")


def test_an_interrupted_study_continues_its_running_trial(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(outer__trials=8)
    uninterrupted = execute(study, tmp_path / "b", Standin())

    def interrupt(spec: TrialSpec, epoch: int) -> None:
        if len(interrupted.computed) == 13:
            raise KeyboardInterrupt

    interrupted = Standin(before_epoch=interrupt)
    with pytest.raises(KeyboardInterrupt):
        execute(study, tmp_path / "a", interrupted)
    records = read(study, tmp_path / "a")
    assert [record.status for record in records].count("running") == 1
    callbacks, standin = RecordingCallbacks(), Standin()
    assert reproducible(execute(study, tmp_path / "a", standin, callbacks)) == reproducible(uninterrupted)
    assert len(callbacks.messages) == 1
    assert callbacks.messages[0].startswith(f"trial {records[-1].number} was interrupted: continuing it after epoch")
    assert not set(standin.computed) & set(interrupted.computed)


@pytest.mark.parametrize("status", ["pruned", "complete"])
def test_a_trial_interrupted_after_its_end_but_before_that_was_stored_ends_the_same(
    status: str, make_study: MakeStudy, tmp_path: Path
) -> None:
    """The pruner has decided and stored that it has: asked again, Hyperband would decide for the next rung."""

    class Interrupting(RecordingCallbacks):
        def trial_finished(self, number: int, result: Any) -> None:
            if result.status == status and number > 2:
                raise KeyboardInterrupt

    study = make_study(outer__trials=9)
    uninterrupted = execute(study, tmp_path / "b", Standin())
    with pytest.raises(KeyboardInterrupt):
        execute(study, tmp_path / "a", Standin(), Interrupting())
    assert reproducible(execute(study, tmp_path / "a", Standin())) == reproducible(uninterrupted)


def test_a_trial_that_kills_its_process_three_times_fails(engine: str, make_study: MakeStudy, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"outer__trials": 2, "outer__pruner": "none"}
    assert run_killer("in_first_epoch", tmp_path, 3, engine, **changes) == 3
    records = execute(make_study(**changes), tmp_path, Standin())
    assert [record.status for record in records] == ["failed", "complete"]
    assert records[0].reason == "the process was killed 3 times after epoch 0 of this trial"


def test_a_full_disk_stops_the_study_and_its_trial_can_be_continued(make_study: MakeStudy, tmp_path: Path) -> None:
    def fill_disk(spec: TrialSpec, epoch: int) -> None:
        if epoch == 3:
            raise OSError(28, "No space left on device")

    study = make_study(outer__trials=2, outer__pruner="none")
    for _ in range(5):
        with pytest.raises(StoreError, match="No space left on device"):
            execute(study, tmp_path, Standin(before_epoch=fill_disk))
    assert [record.status for record in execute(study, tmp_path, Standin())] == ["complete"] * 2


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file with its time of change and its bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_reading_gives_the_records_of_the_run_and_changes_nothing(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(outer__trials=7)
    records = execute(study, tmp_path, Standin())
    before = contents(tmp_path)
    assert len(before) >= 9  # study.yaml, the engine's file and the checkpoints of seven trials
    assert read(study, tmp_path) == records
    assert contents(tmp_path) == before


def test_there_are_no_records_before_the_first_trial(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study()
    StudyDirectory.open_for(study, tmp_path).close()
    before = contents(tmp_path)
    assert read(study, tmp_path) == []
    assert contents(tmp_path) == before


def test_a_study_is_read_while_another_process_holds_its_lock(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(outer__trials=2)
    records = execute(study, tmp_path, Standin())
    with locked_by_another_process(tmp_path / "runs" / "standin" / "lock"):
        with pytest.raises(StoreError, match="is being run by process"):
            execute(study, tmp_path, Standin())
        assert read(study, tmp_path) == records


def test_a_study_is_read_while_it_runs(make_study: MakeStudy, tmp_path: Path) -> None:
    study, seen = make_study(outer__trials=3, outer__pruner="none"), []

    def look(spec: TrialSpec, epoch: int) -> None:
        seen.append([record.status for record in read(study, tmp_path)])

    execute(study, tmp_path, Standin(before_epoch=look))
    assert len(seen) == 3 * 5
    assert seen[0] == ["running"]
    assert seen[-1] == ["complete", "complete", "running"]


def test_the_best_trial_is_the_earliest_among_equals() -> None:
    records = [
        TrialRecord(number=0, status="failed", reason="x"),
        TrialRecord(number=1, status="complete", value=0.5),
        TrialRecord(number=2, status="complete", value=0.9),
        TrialRecord(number=3, status="complete", value=0.9),
        TrialRecord(number=4, status="pruned"),
    ]
    assert best_of(records, "s").number == 2
