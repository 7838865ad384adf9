"""Files that outlive a crash: the queue of events that the store has not confirmed, and the reports of a running trial.

Knows files and events, no store. One process writes a study's files at a time (the study's lock sees to that).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nasact.tracking.events import Event, OpenTrial, from_record, now, to_record


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file, one a line; a line torn by a crash is passed over."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


def append_line(path: Path, record: Mapping[str, Any], *, durable: bool) -> None:
    """Add one line; after a torn one it begins on a line of its own. `durable`: on the disk before this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        torn = False
        if size:
            file.seek(size - 1)
            torn = file.read(1) != b"\n"
        file.write((b"\n" if torn else b"") + json.dumps(record).encode() + b"\n")
        file.flush()
        if durable:
            os.fsync(file.fileno())


class Spool:
    """Events in the order they happened, each kept until `done`.

    An event is written before the store is told, so a process killed in between loses nothing: the next delivers it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending: dict[int, Event] = {}
        last = 0
        for record in read_lines(path):
            try:
                if "done" in record:
                    self._pending.pop(int(record["done"]), None)
                else:
                    last = max(last, int(record["id"]))
                    self._pending[int(record["id"])] = from_record(record["event"])
            except (KeyError, TypeError, ValueError):
                continue
        self._next = last + 1

    def __len__(self) -> int:
        return len(self._pending)

    def pending(self) -> list[tuple[int, Event]]:
        """What the store has not confirmed, oldest first."""
        return list(self._pending.items())

    def append(self, event: Event) -> int:
        """Keep an event. It stays known to this process even where the disk refuses it (then OSError)."""
        number, self._next = self._next, self._next + 1
        self._pending[number] = event
        append_line(self.path, {"id": number, "event": to_record(event)}, durable=True)
        return number

    def done(self, number: int) -> None:
        """The store has it. A file with nothing pending is emptied."""
        self._pending.pop(number, None)
        if self._pending:
            append_line(self.path, {"done": number}, durable=False)
        else:
            self.path.unlink(missing_ok=True)


class TrialLog:
    """The reports of running trials, one file each, so that a continued trial keeps the epochs of its first life."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._open: dict[int, OpenTrial] = {}

    def _path(self, number: int) -> Path:
        return self.directory / f"trial-{number}.jsonl"

    def start(self, number: int, key: str, params: Mapping[str, str]) -> OpenTrial:
        """Begin trial `number`, or continue it where its file tells of the same configuration."""
        trial = self._load(number)
        if trial is None or trial.key != key:
            trial = self._open[number] = OpenTrial(key=key, params=dict(params))
            self._path(number).unlink(missing_ok=True)
            append_line(
                self._path(number),
                {"key": key, "params": trial.params, "started": trial.started},
                durable=False,
            )
        self._open[number] = trial
        return trial

    def report(self, number: int, phase: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Keep one report of trial `number`."""
        time = now()
        self.get(number).report(phase, epoch, metrics, time)
        append_line(
            self._path(number),
            {"phase": phase, "epoch": epoch, "metrics": dict(metrics), "time": time},
            durable=False,
        )

    def get(self, number: int) -> OpenTrial:
        """What is known of trial `number`, from this process or an earlier one."""
        trial = self._open.get(number) or self._load(number) or OpenTrial()
        self._open[number] = trial
        return trial

    def close(self, number: int) -> None:
        """Trial `number` has ended and its event is kept elsewhere."""
        self._open.pop(number, None)
        self._path(number).unlink(missing_ok=True)

    def clear(self) -> None:
        """The study has ended: nothing that is still open will continue."""
        self._open.clear()
        for path in self.directory.glob("trial-*.jsonl"):
            path.unlink(missing_ok=True)

    def _load(self, number: int) -> OpenTrial | None:
        trial: OpenTrial | None = None
        for record in read_lines(self._path(number)):
            try:
                if "key" in record:
                    trial = OpenTrial(key=record["key"], params=record["params"], started=record["started"])
                elif trial is not None:
                    trial.report(record["phase"], record["epoch"], record["metrics"], record["time"])
            except (KeyError, TypeError, ValueError):
                continue
        return trial
