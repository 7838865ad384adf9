"""The events of a study as records: each can be one line of JSON, and be delivered later, twice or by another process.

Each event holds its own times and all that is needed to store it, so that delivering it again changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias


def now_ms() -> int:
    """Milliseconds since the epoch (1970-01-01 UTC)."""
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
class MetricPoint:
    """The value of one metric at one epoch (`step`); `time` in milliseconds since the epoch."""

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
    points: tuple[MetricPoint, ...]
    files: str | None
    """Folder of the trial's staged artifacts; None: it has none."""


@dataclass(frozen=True, kw_only=True)
class ComparisonFinished:
    points: tuple[MetricPoint, ...]
    files: str | None
    time: int


@dataclass(frozen=True, kw_only=True)
class ModelReady:
    name: str
    alias: str
    digest: str
    """SHA-256 of the network's tensors, so that the same network is registered once."""
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
            MetricPoint(name=name, value=value, step=step, time=time) for name, value, step, time in fields["points"]
        )
    return _KINDS[record["kind"]](**fields)


def staged_folder(event: Event) -> str | None:
    """The folder of the event's staged artifacts; None if it has none."""
    return None if isinstance(event, StudyStarted | TrialStarted | StudyFinished) else event.files
