"""One rule decides which trial is best: the same for engines, progress, tables and documents."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from nasact.outer.records import TrialRecord, best_so_far
from nasact.report.trials_table import best_trial_number
from nasact.trial_status import STATUSES, TrialScore, best_trial

VALUES = st.none() | st.floats(width=16) | st.sampled_from([0.5, 0.75])


@st.composite
def scores(draw: st.DrawFn) -> list[TrialScore]:
    """Trials in any order; every number occurs at most once."""
    numbers = draw(st.lists(st.integers(0, 50), unique=True, max_size=12))
    return [TrialScore(number, draw(st.sampled_from(STATUSES)), draw(VALUES)) for number in numbers]


@given(scores())
def test_the_best_trial_is_the_earliest_complete_one_with_the_highest_value(trials: list[TrialScore]) -> None:
    best = best_trial(trials)
    rivals = [
        (score.value, -score.number)
        for score in trials
        if score.status == "complete" and score.value is not None and math.isfinite(score.value)
    ]
    assert (best is None) == (not rivals)
    if best is not None:
        assert best.status == "complete"
        assert (best.value, -best.number) == max(rivals)


@given(scores())
def test_engines_and_tables_choose_the_same_trial(trials: list[TrialScore]) -> None:
    best = best_trial(trials)
    number = None if best is None else best.number
    records = [TrialRecord(number=trial.number, status=trial.status, value=trial.value) for trial in trials]
    record = best_so_far(records)
    assert (None if record is None else record.number) == number
    assert best_trial_number([record.to_dict() for record in records]) == number
