"""Whatever the store does, no call raises, and every event is delivered in the end."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nasact.tracking import RunIds, StudyInfo
from nasact.tracking.events import Event, StudyFinished, TrialFinished, TrialStarted, staged_folder
from nasact.tracking.outbox import OutboxTracker

INFO = StudyInfo(name="s", fingerprint="f", yaml="name: s\n")


class ListStore:
    """A store in memory. `up`: whether it answers; `refuses`: types of event that it rejects; `fails_next`: a stack."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.files: dict[str, bytes] = {}
        self.up = True
        self.refuses: tuple[type, ...] = ()
        self.fails_next: list[bool] = []
        self.attempts = 0
        self.cache_clears = 0

    @property
    def uri(self) -> str:
        return "list://"

    @property
    def run_ids(self) -> RunIds:
        return {"study": None, "trials": {}}

    def set_study(self, info: StudyInfo) -> None: ...

    def is_reachable(self) -> bool:
        return self.up

    def clear_cache(self) -> None:
        self.cache_clears += 1

    def deliver(self, event: Event) -> str | None:
        self.attempts += 1
        if not self.up:
            raise ConnectionError("no route\nto the store")
        if isinstance(event, self.refuses) or (self.fails_next and self.fails_next.pop()):
            raise ValueError("rejected")
        self.events.append(event)
        folder = staged_folder(event)
        if folder is not None:
            self.files |= {path.name: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
        return f"#{len(self.events)}"

    def find_model(self, name: str, alias: str, digest: str) -> str | None:
        return None

    def save_model(self, module: Any, example: Any, folder: Path) -> None:
        (folder / "weights").write_bytes(b"w")


def kinds(store: ListStore) -> list[str]:
    return [type(event).__name__ for event in store.events]


def trial(tracker: OutboxTracker, number: int) -> None:
    tracker.trial_started(number, f"k{number}", {"lr": 0.1})
    tracker.trial_report(number, {"phase": "search", "epoch": 1, "metrics": {"loss": 0.5}})
    tracker.trial_finished(number, "complete", {"acc": 0.9}, {"a.json": "{}"}, lambda: {"p": b"png"}, None)


def test_a_healthy_store_gets_every_event_at_once_and_no_file_remains(tmp_path: Path) -> None:
    store = ListStore()
    tracker = OutboxTracker(store, tmp_path)
    tracker.study_started(INFO)
    trial(tracker, 0)
    assert kinds(store) == ["StudyStarted", "TrialStarted", "TrialFinished"]
    assert store.files == {"a.json": b"{}", "p.png": b"png"}
    tracker.study_finished("complete")
    assert tracker.pending_count == 0
    assert [path for path in (tmp_path / "tracking").rglob("*") if path.is_file()] == []


def test_reports_become_points_of_the_finished_trial(tmp_path: Path) -> None:
    store = ListStore()
    tracker = OutboxTracker(store, tmp_path)
    tracker.study_started(INFO)
    trial(tracker, 0)
    finished = store.events[-1]
    assert isinstance(finished, TrialFinished)
    assert [(p.name, p.step, p.value) for p in finished.points] == [("search/loss", 1, 0.5), ("acc", 0, 0.9)]


def test_events_of_an_outage_are_delivered_in_order_afterwards(tmp_path: Path) -> None:
    store = ListStore()
    tracker = OutboxTracker(store, tmp_path)
    tracker.study_started(INFO)
    store.up = False
    trial(tracker, 0)
    trial(tracker, 1)
    assert tracker.pending_count == 4
    store.up = True
    tracker.study_finished("complete")
    assert kinds(store) == ["StudyStarted", *["TrialStarted", "TrialFinished"] * 2, "StudyFinished"]
    assert tracker.pending_count == 0


def test_the_next_process_delivers_pending_events_with_their_files(tmp_path: Path) -> None:
    down = ListStore()
    down.up = False
    first = OutboxTracker(down, tmp_path / "a")
    first.study_started(INFO)
    trial(first, 0)
    first.study_finished("interrupted")
    (tmp_path / "a").rename(tmp_path / "b")
    store = ListStore()
    second = OutboxTracker(store, tmp_path / "b")
    second.study_started(INFO)
    assert kinds(store) == ["StudyStarted", "TrialStarted", "TrialFinished", "StudyFinished", "StudyStarted"]
    assert store.files == {"a.json": b"{}", "p.png": b"png"}


def test_a_store_that_is_down_is_contacted_again_only_after_the_backoff(tmp_path: Path) -> None:
    now = [0.0]
    store = ListStore()
    tracker = OutboxTracker(store, tmp_path, retry_after=30, clock=lambda: now[0])
    tracker.study_started(INFO)
    store.up = False
    trial(tracker, 0)
    attempts_before = store.attempts
    trial(tracker, 1)
    assert store.attempts == attempts_before
    now[0] = 31
    trial(tracker, 2)
    assert store.attempts == attempts_before + 1
    now[0] = 62  # the second wait is twice as long
    trial(tracker, 3)
    assert store.attempts == attempts_before + 1
    store.up = True
    now[0] = 100
    trial(tracker, 4)
    assert tracker.pending_count == 0


def test_one_event_that_the_store_rejects_does_not_delay_the_others(tmp_path: Path) -> None:
    store = ListStore()
    store.refuses = (TrialStarted,)
    tracker = OutboxTracker(store, tmp_path)
    tracker.study_started(INFO)
    trial(tracker, 0)
    trial(tracker, 1)
    assert kinds(store) == ["StudyStarted", "TrialFinished", "TrialFinished"]
    assert tracker.pending_count == 2
    store.refuses = ()
    tracker.study_finished("complete")
    assert tracker.pending_count == 0


def test_an_outage_is_one_line_of_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = ListStore()
    tracker = OutboxTracker(store, tmp_path)
    tracker.study_started(INFO)
    store.up = False
    for number in range(5):
        trial(tracker, number)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "training goes on" in record.message
    assert "no route to the store" in record.message
    assert "\n" not in record.message


def test_figures_that_cannot_be_rendered_are_omitted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> dict[str, bytes]:
        raise RuntimeError("no canvas")

    store = ListStore()
    tracker = OutboxTracker(store, tmp_path)
    tracker.study_started(INFO)
    tracker.trial_finished(0, "complete", {"acc": 1.0}, {"a.json": "{}"}, broken, None)
    assert kinds(store)[-1] == "TrialFinished"
    assert store.files == {"a.json": b"{}"}
    assert "no canvas" in caplog.text


def test_a_disk_that_refuses_writes_does_not_stop_the_tracking(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # A file where the folder should be refuses every write, for root too.
    (tmp_path / "tracking").write_text("")
    store = ListStore()
    tracker = OutboxTracker(store, tmp_path)
    tracker.study_started(INFO)
    trial(tracker, 0)
    tracker.study_finished("complete")
    assert kinds(store) == ["StudyStarted", "TrialStarted", "TrialFinished", "StudyFinished"]
    assert "in memory only" in caplog.text


def test_reports_without_metrics_are_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = OutboxTracker(ListStore(), tmp_path)
    tracker.study_started(INFO)
    tracker.trial_started(0, "k", {})
    tracker.trial_report(0, {"epoch": 1})
    assert "trial_report failed" in caplog.text


def test_an_event_whose_delivery_was_interrupted_is_delivered_at_the_end_of_the_study(tmp_path: Path) -> None:
    class Interrupted(ListStore):
        def deliver(self, event: Event) -> str | None:
            if isinstance(event, TrialFinished) and not self.cache_clears:
                raise KeyboardInterrupt
            return super().deliver(event)

    store = Interrupted()
    tracker = OutboxTracker(store, tmp_path)
    tracker.study_started(INFO)
    with pytest.raises(KeyboardInterrupt):
        trial(tracker, 0)
    tracker.study_finished("interrupted")
    assert kinds(store) == ["StudyStarted", "TrialStarted", "TrialFinished", "StudyFinished"]


@given(st.lists(st.tuples(st.sampled_from(["up", "down", "restart", "trial", "flaky"])), max_size=12))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_event_is_lost_whatever_happens(tmp_path_factory: pytest.TempPathFactory, script: list[tuple[str]]) -> None:
    folder, store = tmp_path_factory.mktemp("study"), ListStore()
    make = functools.partial(OutboxTracker, store, folder)
    tracker, trials = make(), 0
    tracker.study_started(INFO)
    for (step,) in script:
        match step:
            case "up" | "down":
                store.up = step == "up"
            case "flaky":
                store.fails_next = [False, True]
            case "restart":
                tracker = make()
                tracker.study_started(INFO)
            case "trial":
                trial(tracker, trials)
                trials += 1
    store.up, store.fails_next = True, []
    tracker.study_finished("complete")
    finished = [event.number for event in store.events if isinstance(event, TrialFinished)]
    assert sorted(finished) == list(range(trials))
    assert isinstance(store.events[-1], StudyFinished)
    assert tracker.pending_count == 0
