"""A golden trial: a refactoring must reproduce these numbers.

On the machine that wrote the file they are bit-identical; another processor may round differently, so the comparison
allows 1e-4. `python tests/trial/test_golden.py` writes the file again, for a change that is meant to change numbers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nasact.outer.data import load_study_data
from nasact.results import TrialResult
from nasact.study import Study
from nasact.trial import run_to_end

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
    return run_to_end(spec, load_study_data(spec))


def numbers(result: TrialResult) -> dict[str, Any]:
    assert result.genotype is not None
    return {
        "history": [
            {name: value for name, value in report["metrics"].items() if name != "seconds"} for report in result.history
        ],
        "weights": result.weights_over_time,
        "genotype": result.genotype.to_dict()["sites"],
    }


def require_close(found: Any, golden: Any, place: str = "") -> None:
    if isinstance(golden, dict):
        assert list(found) == list(golden), place
        for key in golden:
            require_close(found[key], golden[key], f"{place}.{key}")
    elif isinstance(golden, list):
        assert len(found) == len(golden), place
        for index, (value, golden_value) in enumerate(zip(found, golden, strict=True)):
            require_close(value, golden_value, f"{place}[{index}]")
    elif isinstance(golden, float):
        # an accuracy on 288 images may differ by one image
        tolerance = 1 / 280 if "accuracy" in place else 1e-4
        assert found == pytest.approx(golden, rel=1e-4, abs=tolerance), place
    else:
        assert found == golden, place


def test_a_trial_reproduces_the_golden_numbers() -> None:
    require_close(json.loads(json.dumps(numbers(trial()))), json.loads(FILE.read_text()))


def test_the_same_seed_gives_the_same_numbers_to_the_bit() -> None:
    assert json.dumps(numbers(trial())) == json.dumps(numbers(trial()))


if __name__ == "__main__":
    FILE.write_text(json.dumps(numbers(trial()), indent=1) + "\n")
