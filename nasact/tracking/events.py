"""What happens in a study, as records that can be a line of JSON and be delivered later, twice, or by another process.

Every event carries its own times and all it needs, so delivering one again changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias


def now() -> int:
    """Milliseconds since the epoch."""
    return int(time.time() * 1000)


@dataclass(frozen=True, kw_only=True)
class StudyStarted:
    yaml: str
    tags: Mapping[str, str]
    time: int


@dataclass(frozen=True, kw_only=True)
class TrialStarted:
    number: int
    key: str
    params: Mapping[str, str]
    time: int


@dataclass(frozen=True, kw_only=True)
class Point:
    """One number of one epoch."""

    name: str
    value: float
    step: int
    time: int


@dataclass(frozen=True, kw_only=True)
class TrialFinished:
    number: int
    key: str
    params: Mapping[str, str]
    started: int
    time: int
    status: str
    reason: str | None
    points: tuple[Point, ...]
    files: str | None
    """The folder of the trial's artifacts, waiting to be stored."""


@dataclass(frozen=True, kw_only=True)
class ComparisonFinished:
    points: tuple[Point, ...]
    files: str | None
    time: int


@dataclass(frozen=True, kw_only=True)
class ModelReady:
    name: str
    alias: str
    digest: str
    """Of the network's tensors: the same network is registered once."""
    files: str
    time: int


@dataclass(frozen=True, kw_only=True)
class StudyFinished:
    status: str
    time: int


Event: TypeAlias = StudyStarted | TrialStarted | TrialFinished | ComparisonFinished | ModelReady | StudyFinished

_KINDS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (StudyStarted, TrialStarted, TrialFinished, ComparisonFinished, ModelReady, StudyFinished)
}


def to_record(event: Event) -> dict[str, Any]:
    """The event as plain JSON types."""
    record: dict[str, Any] = {"kind": type(event).__name__, **asdict(event)}
    if "points" in record:
        record["points"] = [list(point.values()) for point in record["points"]]
    return record


def from_record(record: Mapping[str, Any]) -> Event:
    """The event that `to_record` wrote; KeyError or TypeError for anything else."""
    fields = {name: value for name, value in record.items() if name != "kind"}
    if "points" in fields:
        fields["points"] = tuple(
            Point(name=name, value=value, step=step, time=time) for name, value, step, time in fields["points"]
        )
    return _KINDS[record["kind"]](**fields)


def files_of(event: Event) -> str | None:
    """The folder that goes with an event, if there is one."""
    return None if isinstance(event, StudyStarted | TrialStarted | StudyFinished) else event.files


@dataclass(kw_only=True)
class OpenTrial:
    """A trial that runs: what is known of it before it ends."""

    key: str = ""
    params: dict[str, str] = field(default_factory=dict)
    started: int = field(default_factory=now)
    points: dict[tuple[str, int], Point] = field(default_factory=dict)

    def report(self, phase: str, epoch: int, metrics: Mapping[str, float], time: int) -> None:
        """Take in one report; a repeated epoch replaces what it said before but keeps its time."""
        for name, value in metrics.items():
            place = (f"{phase}/{name}", epoch)
            earlier = self.points.get(place)
            self.points[place] = Point(name=place[0], value=value, step=epoch, time=earlier.time if earlier else time)
