"""A trial that is killed with SIGKILL and then continued has the result of an uninterrupted trial, to the bit."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from nasact.results import Report, TrialResult
from nasact.study import TrialSpec
from nasact.tasks import Data
from nasact.trial import run_trial

# Starts the trial twice, each time in a fork, so that torch is imported only once.
CHILD = """
import json, os, sys, torch
from pathlib import Path
from nasact.study import Study
from nasact.tasks import Data, Split, TestSet
from nasact.trial import run_trial

spec = Study.from_tree(json.loads(sys.argv[1])).spec
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        torch.set_num_threads(1)
        train, val = (Split(*tensors) for tensors in torch.load(sys.argv[2]))
        shape = tuple(train.x.shape[1:])
        data = Data(name="saved", train=train, val=val, classes=10, input_shape=shape, test=TestSet(lambda: val))
        print("pid", os.getpid(), flush=True)
        for report in run_trial(spec, data, directory=Path(sys.argv[3])):
            print(report.phase, report.epoch, flush=True)
        os._exit(0)
    print("ended", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def run_until_killed(lines: Iterator[str], at: str, wait: float) -> list[str]:
    """SIGKILL the trial that prints `lines`, `wait` seconds after it reported `at`; return what it had reported."""
    pid = int(next(lines).split()[1])
    seen: list[str] = []
    for line in lines:
        seen.append(line.strip())
        if seen[-1] == at:
            time.sleep(wait)
            os.kill(pid, signal.SIGKILL)
        if seen[-1].startswith("ended"):
            break
    assert seen.pop() == f"ended {-signal.SIGKILL}", f"the trial ended before it was killed: {seen}"
    return seen


def test_a_trial_killed_in_search_and_again_in_retraining_equals_an_uninterrupted_trial(
    make_spec: Callable[..., TrialSpec],
    load: Callable[[TrialSpec], Data],
    driver: Callable[..., tuple[list[Report], TrialResult]],
    facts: Callable[[TrialResult], dict[str, Any]],
    tmp_path: Path,
) -> None:
    # enough epochs that each kill hits the middle of an epoch, long before the end
    spec = make_spec(search={"epochs": 8}, retrain={"epochs": 80})
    data = load(spec)
    torch.save([(split.x, split.y) for split in (data.train, data.val)], tmp_path / "data.pt")
    directory = tmp_path / "trial"
    expected_reports, expected = driver(run_trial(spec, data))
    assert expected.status == "complete"

    command = [sys.executable, "-c", CHILD, json.dumps(spec.to_tree()), str(tmp_path / "data.pt"), str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = iter(process.stdout)
        run_until_killed(lines, "search 3", wait=0.03)
        assert (directory / "checkpoint.pt").exists()
        assert not (directory / "result.json").exists()
        seen = run_until_killed(lines, "retrain 8", wait=0.003)
    # epochs before the first kill are reported again, not trained again
    assert seen[:8] == [f"search {epoch}" for epoch in range(1, 9)]
    assert not (directory / "result.json").exists()

    reports, result = driver(run_trial(spec, data, directory=directory))
    assert facts(result) == facts(expected)
    assert [(r.phase, r.epoch) for r in reports] == [(r.phase, r.epoch) for r in expected_reports]


def test_a_trial_killed_in_a_slow_derivation_derives_the_same_again(
    make_spec: Callable[..., TrialSpec],
    load: Callable[[TrialSpec], Data],
    driver: Callable[..., tuple[list[Report], TrialResult]],
    facts: Callable[[TrialResult], dict[str, Any]],
    tmp_path: Path,
) -> None:
    method = {"name": "validated", "networks": 3, "epochs": 90, "margin": 1.0, "uniform": False}
    spec = make_spec(derive={"method": method}, search={"epochs": 2}, retrain={"epochs": 60})
    data = load(spec)
    torch.save([(split.x, split.y) for split in (data.train, data.val)], tmp_path / "data.pt")
    directory = tmp_path / "trial"
    _, expected = driver(run_trial(spec, data))
    assert expected.metrics["derive_networks"] == 4
    assert expected.metrics["derive_seconds"] > 0.2

    command = [sys.executable, "-c", CHILD, json.dumps(spec.to_tree()), str(tmp_path / "data.pt"), str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = iter(process.stdout)
        assert run_until_killed(lines, "search 2", wait=0.1) == ["search 1", "search 2"]
        assert saved_genotype(directory) is None
        seen = run_until_killed(lines, "retrain 2", wait=0.003)
    assert seen[:3] == ["search 1", "search 2", "retrain 1"]
    assert expected.genotype is not None
    assert saved_genotype(directory) == expected.genotype.to_json()

    _, result = driver(run_trial(spec, data, directory=directory))
    assert result.genotype == expected.genotype
    assert facts(result) == facts(expected)


def saved_genotype(directory: Path) -> str | None:
    """The genotype in the checkpoint (read here without its header), or None."""
    body = (directory / "checkpoint.pt").read_bytes().partition(b"\n")[2]
    genotype: str | None = torch.load(io.BytesIO(body), weights_only=True)["payload"]["genotype"]
    return genotype
