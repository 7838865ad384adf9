"""A study whose process is killed, again and again, ends with the trials it would have ended with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import outer_standin
import pytest
from outer_standin import Standin, execute, shown, study

from nasact.outer.optuna import read_trials
from nasact.outer.store import StudyDirectory

KILLS = 5


@pytest.mark.parametrize(("sampler", "pruner", "warmup"), [("tpe", "hyperband", 2), ("random", "median", 0)])
def test_killed_study_equals_uninterrupted_study(sampler: str, pruner: str, warmup: int, tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "outer__sampler": sampler,
        "outer__pruner": pruner,
        "outer__trials": 12,
        "search__epochs": 4 + warmup,
    }
    changes["search__warmup"] = warmup
    uninterrupted = execute(study(**changes), tmp_path / "whole", Standin())
    assert {record.status for record in uninterrupted} == {"complete", "pruned"}

    root = tmp_path / "killed"
    root.mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, outer_standin.__file__, str(root), json.dumps(changes), str(KILLS)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert process.returncode >= KILLS - 1, f"only {process.returncode} of {KILLS} kills hit: {process.stderr}"

    left = read_trials(StudyDirectory.existing(root, "standin"))
    assert 0 < len(left) <= 12
    assert shown(execute(study(**changes), root, Standin())) == shown(uninterrupted)
