"""The result document as data frames."""

from __future__ import annotations

from nasact.report.frames import comparison_frame, trials_frame
from nasact.report.result import Provenance, result_document

TRIALS = [
    {"number": 0, "status": "complete", "params": {"search.strategy.lr": 0.01}, "value": 0.9,
     "metrics": {"gap": 0.01, "derived_val_accuracy": 0.9}},
    {"number": 1, "status": "failed", "params": {"search.strategy.lr": 0.1}, "value": None, "reason": "nan"},
]  # fmt: skip
COMPARISON = {
    "variants": {
        "derived": {"label": "derived", "functions": "relu", "test_accuracies": [0.9, 0.92]},
        "original": {"label": "own", "functions": "relu", "test_accuracies": [0.88, 0.91]},
    }
}
DOCUMENT = result_document(study={"name": "s"}, trials=TRIALS, provenance=Provenance(seed=0), comparison=COMPARISON)


def test_the_frame_of_trials_has_one_row_per_trial_and_parameters_as_columns() -> None:
    frame = trials_frame(DOCUMENT)
    assert list(frame.index) == [0, 1]
    assert list(frame["search.strategy.lr"]) == [0.01, 0.1]
    assert frame.loc[0, "gap"] == 0.01
    assert frame.loc[1, "reason"] == "nan"


def test_every_metric_of_any_trial_is_a_column() -> None:
    trials = [TRIALS[0], TRIALS[1] | {"metrics": {"new_monitor": 2.0}}]
    frame = trials_frame(result_document(study={"name": "s"}, trials=trials, provenance=Provenance(seed=0)))
    assert frame.loc[1, "new_monitor"] == 2.0
    assert frame["new_monitor"].isna().tolist() == [True, False]


def test_a_document_of_schema_1_gives_a_frame_too() -> None:
    metrics = {"search_val_accuracy": 0.91, "derived_val_accuracy": 0.9, "gap": 0.01, "entropy": 0.5,
               "max_weight": 0.8, "identity_mass": None, "hessian_eigenvalue": None, "discretisation_gap": None,
               "seconds": 3.0}  # fmt: skip
    record = {"number": 0, "status": "complete", "params": {"lr": 0.1}, "value": 0.9, "metrics": metrics}
    older = {"schema": 1, "trials": {"records": [record | {"reason": None, "collapse": None}]}}
    assert trials_frame(older).loc[0, "max_weight"] == 0.8


def test_the_frame_of_a_comparison_has_one_row_per_network() -> None:
    frame = comparison_frame(DOCUMENT)
    assert len(frame) == 4
    assert frame.groupby("variant")["test_accuracy"].mean().round(3).to_dict() == {"derived": 0.91, "original": 0.895}
    assert frame.pivot_table(index="seed", columns="variant", values="test_accuracy").shape == (2, 2)


def test_a_study_without_trials_gives_empty_frames() -> None:
    empty = result_document(study={"name": "s"}, trials=[], provenance=Provenance(seed=0))
    assert trials_frame(empty).empty
    assert comparison_frame(empty).empty
