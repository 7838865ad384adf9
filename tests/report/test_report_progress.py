"""The progress view receives the callbacks of an engine: bars, lines or silence, and never a byte on stdout."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from nasact.report.progress import ProgressView, metric_texts, outcome_text


class Clock:
    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time


def report(phase, epoch, epochs=10):
    metrics = {"train_loss": 0.2345, "val_loss": 0.3, "val_accuracy": 0.9654, "entropy": 1.25, "seconds": 3.0}
    return SimpleNamespace(phase=phase, epoch=epoch, epochs=epochs, metrics=metrics)


def result(accuracy=None, status="complete", reason=None):
    metrics = {} if accuracy is None else {"derived_val_accuracy": accuracy, "search_val_accuracy": 0.96, "gap": 0.01}
    return SimpleNamespace(status=status, reason=reason, metrics=metrics)


def view(mode, clock=None, width=100):
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=mode == "live")
    return ProgressView(mode=mode, console=console, now=clock or Clock()), stream


def run_trial(progress, number, clock, accuracy=None, status="complete", reason=None, seconds=20):
    progress.trial_started(number, {"search.strategy.lr": 0.01})
    for phase in ("search", "retrain"):
        for epoch in range(1, 11):
            clock.time += seconds / 20
            progress.report(number, report(phase, epoch))
    progress.trial_finished(number, result(accuracy, status, reason))


def test_plain_output_is_one_line_per_trial():
    clock = Clock()
    progress, stream = view("plain", clock)
    with progress:
        progress.study_started(4)
        run_trial(progress, 0, clock, 0.95)
        run_trial(progress, 1, clock, status="failed", reason="loss became nan in epoch 3 of search")
        run_trial(progress, 2, clock, 0.97)
        run_trial(progress, 3, clock, 0.96)
        for done in range(21):
            progress.compare_progress(done, 20, f"relu, seed {done}")
        progress.message("the grid has 4 points")
    assert stream.getvalue().splitlines() == [
        "trial 0 complete in 20.0 s: derived 95.00 %, mixture 96.00 %, gap +1.00; best 95.00 % (trial 0); 1/4 trials, "
        "about 1 min 00 s left",
        "trial 1 failed in 20.0 s: loss became nan in epoch 3 of search; best 95.00 % (trial 0); 2/4 trials, "
        "about 40.0 s left",
        "trial 2 complete in 20.0 s: derived 97.00 %, mixture 96.00 %, gap +1.00; best 97.00 % (trial 2); 3/4 trials, "
        "about 20.0 s left",
        "trial 3 complete in 20.0 s: derived 96.00 %, mixture 96.00 %, gap +1.00; best 97.00 % (trial 2); 4/4 trials",
        "comparing: 20 networks, each trained from scratch",
        "compared 20/20",
        "the grid has 4 points",
    ]


def test_a_long_trial_prints_a_line_once_a_minute():
    clock = Clock()
    progress, stream = view("plain", clock)
    progress.study_started(2)
    run_trial(progress, 0, clock, 0.9, seconds=200)
    lines = stream.getvalue().splitlines()[:-1]
    assert lines[0] == "trial 0: search 6/10, loss 0.234, val 96.5 %, entropy 1.25, about 5 min 40 s left"
    assert len(lines) == 3


def test_live_output_shows_trial_best_and_time_left():
    clock = Clock()
    progress, stream = view("live", clock, width=80)
    with progress:
        progress.study_started(3)
        run_trial(progress, 0, clock, 0.95)
        progress.trial_started(1, {"search.strategy.lr": 0.01})
        progress.report(1, report("search", 5))
        progress._bars._progress.refresh()
        text = stream.getvalue()
        progress.trial_finished(1, result(status="failed", reason="nan"))
        progress.compare_progress(3, 20, "best single (tanh), seed 2")
        progress._bars._progress.refresh()
    assert "trial 1" in text
    assert "search 5/10, loss 0.234, val 96.5 %" in text
    assert "best 95.00 % (trial 0)" in text
    assert "0:35 left" in text
    assert "trial 1 failed" in stream.getvalue()
    assert "best single (tanh), seed 2" in stream.getvalue()


@pytest.mark.parametrize("mode", ["live", "plain", "silent"])
def test_nothing_is_printed_on_stdout_nor_in_silent_mode_on_stderr(mode, capsys):
    clock = Clock()
    with ProgressView(mode=mode, now=clock) as progress:
        progress.study_started(1)
        progress.message("[bold]a line")
        run_trial(progress, 0, clock, 0.9)
        progress.compare_progress(1, 1, "relu")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("[bold]a line" in captured.err) == (mode != "silent")


def test_without_a_terminal_the_output_is_plain(capsys):
    assert ProgressView().mode == "plain"
    assert ProgressView().console.stderr


def test_a_continued_study_counts_the_trials_finished_before():
    clock = Clock()
    progress, stream = view("plain", clock)
    progress.study_started(10, best=(0.99, 2))
    run_trial(progress, 7, clock, 0.95)
    assert "best 99.00 % (trial 2); 8/10 trials, about 40.0 s left" in stream.getvalue()


def test_time_left_is_unknown_at_first_then_estimated_from_durations():
    clock = Clock()
    progress, _ = view("silent", clock)
    progress.study_started(2)
    assert progress.eta() is None
    progress.trial_started(0, {})
    assert progress.eta() is None
    clock.time = 10.0
    progress.report(0, report("search", 10))
    assert progress.eta() == pytest.approx(30.0), "half of one of two trials took 10 seconds"
    progress.trial_finished(0, result(0.9))
    assert progress.eta() == pytest.approx(10.0)


def test_values_that_are_not_finite_numbers_are_not_shown():
    assert metric_texts({"train_loss": float("nan"), "val_accuracy": 0.5}) == ["val 50.0 %"]
    assert outcome_text(result(status="pruned")) == ""
    assert outcome_text(result(status="failed")) == "for an unknown reason"
