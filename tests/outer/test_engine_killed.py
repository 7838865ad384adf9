"""A study whose process is killed, again and again, ends with the trials it would have ended with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from outer_standin import Standin, execute, read, reproducible, run_killer, study

KILLS = 5


@pytest.mark.parametrize(("sampler", "pruner", "warmup"), [("tpe", "hyperband", 2), ("random", "median", 0)])
def test_killed_study_equals_uninterrupted_study(
    engine: str, sampler: str, pruner: str, warmup: int, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {
        "outer__sampler": sampler,
        "outer__pruner": pruner,
        "outer__trials": 12,
        "search__epochs": 4 + warmup,
        "search__warmup": warmup,
    }
    made = study(engine, **changes)
    uninterrupted = execute(made, tmp_path / "whole", Standin())
    assert {record.status for record in uninterrupted} == {"complete", "pruned"}

    root = tmp_path / "killed"
    killed = run_killer("repeatedly", root, KILLS, engine, **changes)
    assert killed >= KILLS - 1, f"only {killed} of {KILLS} kills hit"
    assert 0 < len(read(made, root)) <= 12
    assert reproducible(execute(made, root, Standin())) == reproducible(uninterrupted)
