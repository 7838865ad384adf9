"""The estimate of `nasact check` counts the derivation."""

from __future__ import annotations

import pytest

from nasact.errors import StudyError
from nasact.outer.preview import preview
from nasact.study import Study


def study(method: str = "magnitude", **search: object) -> Study:
    return Study.from_tree(
        {
            "task": {"dataset": "digits", "model": {"name": "mlp", "hidden": [8, 8]}, "train_limit": 100},
            "search_space": ["tanh", "silu"],
            "search": {"epochs": 4, "strategy": "joint", "kernel": "reference", **search},
            "derive": {"method": method},
        }
    )


def test_a_derivation_that_trains_is_part_of_a_trials_time() -> None:
    assert preview(study()).derive_seconds == 0
    seen = preview(study("refit"))
    assert 0 < seen.derive_seconds < seen.trial_seconds - seen.search_steps * seen.search_step_seconds


def test_a_schedule_that_the_data_have_no_step_for_is_told_before_the_search() -> None:
    with pytest.raises(StudyError, match="each of the 4 stages gets no step: the search has 4 after its warm-up"):
        preview(study(strategy="shrink", batch_size=100))
