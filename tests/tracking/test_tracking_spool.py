"""The files of pending events and of running trials: a crash at any moment loses at most the line being written."""

from __future__ import annotations

from pathlib import Path

import pytest

from nasact.tracking.events import (
    ComparisonFinished,
    Event,
    MetricPoint,
    ModelReady,
    StudyFinished,
    StudyStarted,
    TrialFinished,
    TrialStarted,
    from_record,
    to_record,
)
from nasact.tracking.spool import Spool
from nasact.tracking.trial_log import TrialLog

POINT = MetricPoint(name="search/loss", value=0.25, step=3, time=17)
EVENTS: tuple[Event, ...] = (
    StudyStarted(yaml="name: x\n", tags={"seed": "0"}, time=1),
    TrialStarted(number=0, key="k", params={"a": "1"}, time=2),
    TrialFinished(
        number=0,
        key="k",
        params={"a": "1"},
        started=2,
        time=3,
        status="failed",
        reason="nan",
        points=(POINT, POINT),
        files="trial-0-x",
    ),
    ComparisonFinished(points=(POINT,), files=None, time=4),
    ModelReady(name="m", alias="champion", digest="d", files="model-x", time=5),
    StudyFinished(status="complete", time=6),
)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_read_from_its_json_is_the_same(event: Event) -> None:
    assert from_record(to_record(event)) == event


def test_every_kind_of_event_is_a_case() -> None:
    assert {type(event) for event in EVENTS} == set(Event.__args__)


def test_the_next_process_reads_the_pending_events_in_order(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.jsonl")
    numbers = [spool.append(event) for event in EVENTS]
    spool.confirm(numbers[1])
    spool.confirm(numbers[3])
    expected = [EVENTS[0], EVENTS[2], EVENTS[4], EVENTS[5]]
    assert [event for _, event in Spool(tmp_path / "spool.jsonl").pending()] == expected


def test_a_last_line_cut_short_by_a_crash_loses_only_that_event(tmp_path: Path) -> None:
    path = tmp_path / "spool.jsonl"
    spool = Spool(path)
    for event in EVENTS[:3]:
        spool.append(event)
    whole = path.read_bytes()
    for length in range(len(whole) - 2, len(whole) - 60, -7):
        path.write_bytes(whole[:length])
        cut = Spool(path)
        assert [event for _, event in cut.pending()] == list(EVENTS[:2])
        cut.append(EVENTS[5])
        assert [event for _, event in Spool(path).pending()] == [*EVENTS[:2], EVENTS[5]]


def test_numbers_are_not_used_twice_after_a_restart(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.jsonl")
    first, second = spool.append(EVENTS[0]), spool.append(EVENTS[1])
    spool.confirm(first)
    again = Spool(tmp_path / "spool.jsonl")
    assert again.append(EVENTS[2]) > second


def test_an_empty_spool_leaves_no_file(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.jsonl")
    spool.confirm(spool.append(EVENTS[0]))
    assert len(spool) == 0
    assert not (tmp_path / "spool.jsonl").exists()


@pytest.mark.parametrize("junk", [b"\xff\xfe\x00", b"[1, 2]\n", b'{"id": "x", "event": 3}\n', b'{"id": 9}\n', b"\n\n"])
def test_lines_that_hold_no_event_are_skipped(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "spool.jsonl"
    path.write_bytes(junk)
    spool = Spool(path)
    assert len(spool) == 0
    spool.append(EVENTS[0])
    assert [event for _, event in Spool(path).pending()] == [EVENTS[0]]


def test_an_event_that_the_disk_refuses_stays_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    spool = Spool(tmp_path / "file" / "spool.jsonl")
    with pytest.raises(OSError, match="file"):
        spool.append(EVENTS[0])
    assert [event for _, event in spool.pending()] == [EVENTS[0]]


def test_a_continued_trial_keeps_its_earlier_reports(tmp_path: Path) -> None:
    first = TrialLog(tmp_path)
    started = first.start(4, "k", {"a": "1"}).started
    first.add_report(4, "search", 1, {"loss": 0.5})
    first.add_report(4, "search", 2, {"loss": 0.4})
    second = TrialLog(tmp_path)
    trial = second.start(4, "k", {"a": "1"})
    second.add_report(4, "search", 2, {"loss": 0.4})
    second.add_report(4, "search", 3, {"loss": 0.3})
    assert trial.started == started
    assert [(point.step, point.value) for point in trial.points.values()] == [(1, 0.5), (2, 0.4), (3, 0.3)]


def test_another_configuration_with_the_same_number_starts_without_reports(tmp_path: Path) -> None:
    first = TrialLog(tmp_path)
    first.start(4, "k", {})
    first.add_report(4, "search", 1, {"loss": 0.5})
    assert not TrialLog(tmp_path).start(4, "other", {}).points
    assert not TrialLog(tmp_path).get(4).points


def test_a_closed_trial_leaves_no_file(tmp_path: Path) -> None:
    log = TrialLog(tmp_path)
    log.start(0, "k", {})
    log.close(0)
    assert list(tmp_path.iterdir()) == []
