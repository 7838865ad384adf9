"""The estimates of `nasact check`."""

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
    assert preview(study()).cost.derive_seconds == 0
    cost = preview(study("refit")).cost
    assert 0 < cost.derive_seconds < cost.trial_seconds - cost.search_steps * cost.search_step_seconds


def test_a_schedule_with_more_stages_than_steps_is_refused_before_the_search() -> None:
    with pytest.raises(StudyError, match="each of the 4 stages gets no step: the search has 4 after its warm-up"):
        preview(study(strategy="shrink", batch_size=100))


def test_the_document_has_the_costs_next_to_the_other_fields() -> None:
    document = preview(study()).to_dict()
    costs = ["memory", "search_step_seconds", "search_steps", "derive_seconds", "trial_seconds", "study_seconds"]
    assert list(document)[-8:] == [*costs, "plan", "redundancy"]
    assert "cost" not in document
