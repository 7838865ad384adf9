"""The reports of running trials, one file per trial, so that a trial continued after a crash keeps its earlier epochs.

Knows files, no store. Only one process writes the files of a study at a time (the study's lock).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nasact.tracking.events import MetricPoint, now_ms
from nasact.tracking.json_lines import append_line, read_lines


@dataclass(kw_only=True)
class RunningTrial:
    """What is known of a trial before it ends."""

    key: str = ""
    params: dict[str, str] = field(default_factory=dict)
    started: int = field(default_factory=now_ms)
    points: dict[tuple[str, int], MetricPoint] = field(default_factory=dict)

    def add_report(self, phase: str, epoch: int, metrics: Mapping[str, float], time: int) -> None:
        """Add the metrics of one epoch; an epoch that is reported again gets the new values and keeps its time."""
        for name, value in metrics.items():
            metric = f"{phase}/{name}"
            earlier = self.points.get((metric, epoch))
            self.points[metric, epoch] = MetricPoint(
                name=metric, value=value, step=epoch, time=earlier.time if earlier else time
            )


class TrialLog:
    """The running trials of a study, in memory and in `directory`/trial-NUMBER.jsonl."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._trials: dict[int, RunningTrial] = {}

    def _path(self, number: int) -> Path:
        return self.directory / f"trial-{number}.jsonl"

    def start(self, number: int, key: str, params: Mapping[str, str]) -> RunningTrial:
        """Begin trial `number`, or continue it if its file holds the same configuration (`key`)."""
        trial = self._load(number)
        if trial is None or trial.key != key:
            trial = self._trials[number] = RunningTrial(key=key, params=dict(params))
            self._path(number).unlink(missing_ok=True)
            append_line(
                self._path(number),
                {"key": key, "params": trial.params, "started": trial.started},
                durable=False,
            )
        self._trials[number] = trial
        return trial

    def add_report(self, number: int, phase: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of one epoch to trial `number`, in memory and in its file."""
        time = now_ms()
        self.get(number).add_report(phase, epoch, metrics, time)
        append_line(
            self._path(number),
            {"phase": phase, "epoch": epoch, "metrics": dict(metrics), "time": time},
            durable=False,
        )

    def get(self, number: int) -> RunningTrial:
        """Trial `number` as reported in this process or an earlier one; a new one if nothing was reported."""
        trial = self._trials.get(number) or self._load(number) or RunningTrial()
        self._trials[number] = trial
        return trial

    def close(self, number: int) -> None:
        """Forget trial `number` and delete its file: it has ended, and its event is in the spool."""
        self._trials.pop(number, None)
        self._path(number).unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget all trials and delete their files: the study is complete, so none of them will continue."""
        self._trials.clear()
        for path in self.directory.glob("trial-*.jsonl"):
            path.unlink(missing_ok=True)

    def _load(self, number: int) -> RunningTrial | None:
        trial: RunningTrial | None = None
        for record in read_lines(self._path(number)):
            try:
                if "key" in record:
                    trial = RunningTrial(key=record["key"], params=record["params"], started=record["started"])
                elif trial is not None:
                    trial.add_report(record["phase"], record["epoch"], record["metrics"], record["time"])
            except (KeyError, TypeError, ValueError):
                continue
        return trial
