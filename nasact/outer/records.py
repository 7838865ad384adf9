"""What an engine records: one record per trial, and which of them is best. Must not know engines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from nasact.errors import StudyError
from nasact.trial_status import STATUSES, Status, TrialScore, best_trial

if TYPE_CHECKING:
    from nasact.results import Report, TrialResult
    from nasact.study import TrialSpec

OBJECTIVE = "derived_val_accuracy"
"""The metric of a TrialResult that the outer loop maximises. (Pruners compare a metric of reports: outer.prune_by.)"""


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial in the outer loop. Its result is in the trial's directory.

    `params`: the drawn values by parameter. `key`: of its spec, which names its directory (None: not started).
    `value`: the objective of a complete trial. `reason`: why it failed. `reused_from`: the complete trial with the same
    configuration, if there is one. `attempts`: processes that tried it without progress. `epochs`: reported so far.
    """

    number: int
    status: Status
    params: dict[str, Any] = field(default_factory=dict)
    key: str | None = None
    value: float | None = None
    reason: str | None = None
    reused_from: int | None = None
    attempts: int = 1
    epochs: int = 0

    @property
    def finished(self) -> bool:
        return self.status != "running"

    def to_dict(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self)}


RunTrial: TypeAlias = "Callable[[TrialSpec, Path], Generator[Report, bool | None, TrialResult]]"
"""Runs one trial in its directory; `send(True)` stops it as pruned."""


def best_so_far(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """The record of the best trial (`trial_status.best_trial`); None before there is one."""
    by_number = {record.number: record for record in records}
    best = best_trial(TrialScore(record.number, record.status, record.value) for record in records)
    return None if best is None else by_number[best.number]


def best_of(records: Sequence[TrialRecord], study: str) -> TrialRecord:
    """The best record of a study that has ended; StudyError with the reasons if no trial completed."""
    best = best_so_far(records)
    if best is not None:
        return best
    reasons = Counter(record.reason or "pruned" for record in records if record.finished)
    summary = "; ".join(f"{count} x {reason}" if count > 1 else reason for reason, count in reasons.most_common(5))
    finished = sum(reasons.values())
    raise StudyError(
        f"study {study!r}: none of its {finished} trials completed: {summary or 'none was started'}. "
        "Fix the cause, then rerun with --fresh"
    )


def counts(records: Sequence[TrialRecord]) -> dict[str, int]:
    """The number of trials with each status, and as `reused` the number of duplicates that were not trained again."""
    by_status = Counter(record.status for record in records)
    reused = sum(record.reused_from is not None for record in records)
    return {status: by_status[status] for status in STATUSES} | {"reused": reused}
