"""Conformance suite of trackers: each accepts the calls of a whole study, in any order, and never raises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from nasact.tracking import MLflowTracker, NullTracker, StudyInfo, Tracker
from nasact.tracking.address import parse_address

KINDS = ("null", "mlflow on sqlite", "mlflow on a server that is away")


@pytest.fixture(params=KINDS)
def tracker(request: pytest.FixtureRequest, make_tracker: Callable[..., MLflowTracker], tmp_path: Any) -> Tracker:
    if request.param == "null":
        return NullTracker()
    if request.param == "mlflow on sqlite":
        return make_tracker()
    # Port 9 (discard) of the loopback interface: no process listens on it.
    return MLflowTracker("http://127.0.0.1:9", directory=tmp_path / "study")


def test_accepts_a_whole_study(tracker: Tracker, play: Callable[..., Any]) -> None:
    play(tracker)
    assert set(tracker.run_ids) == {"study", "trials"}


def test_tracking_uri_is_an_address_that_a_user_could_pass_or_none(tracker: Tracker) -> None:
    if isinstance(tracker, NullTracker):
        assert tracker.tracking_uri is None
    else:
        assert tracker.tracking_uri is not None
        assert parse_address(tracker.tracking_uri).uri == tracker.tracking_uri


def test_tracking_uri_stays_the_same_while_a_study_runs(tracker: Tracker, info: StudyInfo) -> None:
    before = tracker.tracking_uri
    tracker.study_started(info)
    tracker.study_finished("complete")
    assert tracker.tracking_uri == before


def test_accepts_calls_out_of_order(tracker: Tracker, info: StudyInfo) -> None:
    tracker.trial_report(7, {"phase": "search", "epoch": 1, "metrics": {"loss": 1.0}})
    tracker.trial_finished(7, "complete", {}, {}, None, None)
    tracker.study_started(info)
    tracker.comparison_finished({}, {}, None)
    tracker.study_finished("interrupted")


def test_accepts_odd_values(tracker: Tracker, info: StudyInfo) -> None:
    tracker.study_started(info)
    tracker.trial_started(0, "k" * 9000, {"a/../b": None, "": [1, 2], "c(x)": "v" * 9000, "c[x]": object()})
    metrics: dict[str, Any] = {"a": float("nan"), "b": float("inf"), "c": torch.tensor(1.0), "d": None, "%": 1}
    tracker.trial_report(0, {"phase": "search", "epoch": 1, "metrics": metrics})
    tracker.trial_finished(0, "failed", metrics, {"../up": "x", "": "y"}, lambda: {"a b": b"png"}, "r" * 9000)
    tracker.study_finished("failed")


def test_a_network_that_cannot_be_saved_is_only_a_warning(tracker: Tracker, info: StudyInfo) -> None:
    class Branches(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum().item() > 0 else -x

    tracker.study_started(info)
    assert tracker.register_model(Branches(), torch.ones(2, 3), "odd") is None
    tracker.study_finished("complete")
