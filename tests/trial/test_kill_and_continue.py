"""kill -9 in the middle of a trial, then continue: the result is that of an uninterrupted trial, to the bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nasact.study import TrialSpec
from nasact.tasks import Data
from nasact.trial import Report, TrialResult, run_trial

CHILD = """
import json, sys, time, torch
from pathlib import Path
from nasact.study import Study
from nasact.tasks import load_data
from nasact.trial import run_trial

torch.set_num_threads(1)
spec = Study.from_tree(json.loads(sys.argv[1])).spec
task = spec.task
data = load_data(task.dataset.name, task.dataset.options, validation=task.validation, seed=spec.seed, data_dir=None,
                 train_limit=task.train_limit, test_limit=task.test_limit)
for report in run_trial(spec, data, directory=Path(sys.argv[2])):
    print(report.phase, report.epoch, flush=True)
"""


def run_until_killed(spec: TrialSpec, directory: Path, at: str, wait: float) -> list[str]:
    """Run the trial in a process of its own and SIGKILL it `wait` seconds after it reported `at`."""
    command = [sys.executable, "-c", CHILD, json.dumps(spec.to_tree()), str(directory)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    seen: list[str] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            seen.append(line.strip())
            if seen[-1] == at:
                time.sleep(wait)
                break
    finally:
        process.send_signal(signal.SIGKILL)
        if process.stdout is not None:
            process.stdout.close()
        process.wait()
    assert process.returncode == -signal.SIGKILL, f"the trial ended before it could be killed: {seen}"
    return seen


def test_a_trial_killed_in_search_and_again_in_retraining_equals_an_uninterrupted_trial(
    make_spec: Callable[..., TrialSpec],
    load: Callable[[TrialSpec], Data],
    driver: Callable[..., tuple[list[Report], TrialResult]],
    facts: Callable[[TrialResult], dict[str, Any]],
    tmp_path: Path,
) -> None:
    # epochs enough that the kill falls in the middle of an epoch, long before the end
    spec = make_spec(search={"epochs": 8}, retrain={"epochs": 80})
    data = load(spec)
    expected_reports, expected = driver(run_trial(spec, data))
    assert expected.status == "complete"

    run_until_killed(spec, tmp_path, "search 3", wait=0.03)
    assert (tmp_path / "checkpoint.pt").exists()
    assert not (tmp_path / "result.json").exists()
    seen = run_until_killed(spec, tmp_path, "retrain 8", wait=0.003)
    # what was done before the first kill is reported again, not trained again
    assert seen[:8] == [f"search {epoch}" for epoch in range(1, 9)]
    assert not (tmp_path / "result.json").exists()

    reports, result = driver(run_trial(spec, data, directory=tmp_path))
    assert facts(result) == facts(expected)
    assert [(r.phase, r.epoch) for r in reports] == [(r.phase, r.epoch) for r in expected_reports]
