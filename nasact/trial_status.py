"""The statuses of a trial, and the one rule that decides which trial of a study is best. Knows plain values only."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple, get_args

Status = Literal["complete", "pruned", "failed", "running"]
"""Status of a trial. A trial that was interrupted is `running` until the study continues."""

STATUSES: tuple[Status, ...] = get_args(Status)


class TrialScore(NamedTuple):
    """The values that decide which trial is best. `value`: the objective (None: not measured)."""

    number: int
    status: str
    value: float | None


def best_trial(scores: Iterable[TrialScore]) -> TrialScore | None:
    """The complete trial with the highest finite value, the lowest number among equals; None if there is none."""
    candidates = (
        score
        for score in scores
        if score.status == "complete" and score.value is not None and math.isfinite(score.value)
    )
    return max(candidates, key=lambda score: (score.value, -score.number), default=None)
