"""A process is killed at any of its calls to the store: the next one completes the study, with nothing stored twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nasact.tracking import MLflowTracker, StudyInfo

Make = Callable[..., MLflowTracker]

CALLS = 24


class Killed(BaseException):
    """Stands for SIGKILL: no code handles it."""


class KillingClient:
    """MLflow's client, which raises `Killed` after call number `at` has reached the store."""

    def __init__(self, client: Any, at: int) -> None:
        self._client, self._at = client, at
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            result = getattr(self._client, name)(*args, **kwargs)
            if len(self.calls) == self._at:
                raise Killed
            return result

        return call


def _steps(tracker: MLflowTracker, info: StudyInfo, play_trial: Callable[..., None]) -> list[Callable[[], None]]:
    return [
        lambda: tracker.study_started(info),
        lambda: play_trial(tracker, 0),
        lambda: play_trial(tracker, 1, "pruned"),
        lambda: tracker.comparison_finished({"test_accuracy/derived": 0.95}, {"comparison.md": "| a |"}, None),
        lambda: tracker.study_finished("complete"),
    ]


def _steps_until_killed(steps: list[Callable[[], None]]) -> int:
    for done, step in enumerate(steps):
        try:
            step()
        except Killed:
            return done
    raise AssertionError("the client did not raise Killed")


def _calls_of_a_whole_study(make_tracker: Make, info: StudyInfo, play_trial: Callable[..., None]) -> list[str]:
    tracker = make_tracker()
    client = KillingClient(tracker._backend.client, 0)
    tracker._backend.client = client
    for step in _steps(tracker, info, play_trial):
        step()
    return client.calls


@pytest.mark.parametrize("at", range(1, CALLS + 1))
def test_a_process_killed_at_any_call_loses_nothing_and_stores_nothing_twice(
    at: int, make_tracker: Make, info: StudyInfo, play_trial: Callable[..., None], store: Any
) -> None:
    tracker = make_tracker()
    client = KillingClient(tracker._backend.client, at)
    tracker._backend.client = client
    done = _steps_until_killed(_steps(tracker, info, play_trial))
    again = make_tracker()
    steps = _steps(again, info, play_trial)
    steps[0]()
    for step in steps[max(done, 1) :]:
        step()
    assert again.pending_count == 0
    assert store.study().info.status == "FINISHED"
    trials = store.trials()
    assert {n: run.info.status for n, run in trials.items()} == {0: "FINISHED", 1: "KILLED"}
    for number, run in trials.items():
        assert store.history(run, "search/loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
        assert store.history(run, "derived_val_accuracy") == [(0, 0.9 + number / 100)]
        assert store.files(run) == {"genotype.json", "weights.png", "shapes.png"}
        assert set(run.data.params) == {"search.epochs", "search.lr"}
    assert store.history(store.study(), "test_accuracy/derived") == [(0, 0.95)]


def test_every_call_of_a_study_is_a_case(make_tracker: Make, info: StudyInfo, play_trial: Callable[..., None]) -> None:
    calls = _calls_of_a_whole_study(make_tracker, info, play_trial)
    assert len(calls) == CALLS, calls
