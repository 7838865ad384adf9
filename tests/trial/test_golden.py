"""A golden trial: a change that should change nothing must give these numbers again.

Run on the machine that wrote the file they are bit-identical; elsewhere another processor may round differently, so the
comparison allows for 1e-4. `python tests/trial/test_golden.py` writes the file anew, for a change that means to change.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nasact.outer.data import load_study_data
from nasact.study import Study
from nasact.trial import TrialResult, run_trial

FILE = Path(__file__).with_name("golden_trial.json")

TREE: dict[str, Any] = {
    "task": {"dataset": "digits", "model": {"name": "mlp", "hidden": [16, 8], "dropout": 0.1}},
    "search_space": ["relu", "tanh", "snake", "identity"],
    "search": {
        "strategy": {"name": "darts", "order": 2, "lr": 0.03},
        "temperature": {"start": 1.0, "end": 0.2, "scale_alpha_lr": False},
        "epochs": 4,
        "warmup": 1,
        "optimiser": {"name": "adam", "lr": 0.01},
    },
    "derive": {"top_k": 2},
    "retrain": {"epochs": 2},
}


def trial() -> TrialResult:
    spec = Study.from_tree(TREE).spec
    reports = run_trial(spec, load_study_data(spec))
    while True:
        try:
            next(reports)
        except StopIteration as stop:
            result: TrialResult = stop.value
            return result


def numbers(result: TrialResult) -> dict[str, Any]:
    assert result.genotype is not None
    return {
        "history": [
            {name: value for name, value in report["metrics"].items() if name != "seconds"} for report in result.history
        ],
        "weights": result.weights_over_time,
        "genotype": result.genotype.to_dict()["sites"],
    }


def close(found: Any, golden: Any, place: str = "") -> None:
    if isinstance(golden, dict):
        assert list(found) == list(golden), place
        for key in golden:
            close(found[key], golden[key], f"{place}.{key}")
    elif isinstance(golden, list):
        assert len(found) == len(golden), place
        for index, (one, other) in enumerate(zip(found, golden, strict=True)):
            close(one, other, f"{place}[{index}]")
    elif isinstance(golden, float):
        # an accuracy on 288 images may differ by one of them
        tolerance = 1 / 280 if "accuracy" in place else 1e-4
        assert found == pytest.approx(golden, rel=1e-4, abs=tolerance), place
    else:
        assert found == golden, place


def test_a_refactoring_gives_the_golden_numbers_again() -> None:
    close(json.loads(json.dumps(numbers(trial()))), json.loads(FILE.read_text()))


def test_the_same_seed_gives_the_same_numbers_to_the_bit() -> None:
    assert json.dumps(numbers(trial())) == json.dumps(numbers(trial()))


if __name__ == "__main__":
    FILE.write_text(json.dumps(numbers(trial()), indent=1) + "\n")
