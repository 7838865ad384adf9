"""Worker processes of a comparison: the numbers of one process, and no process left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from nasact.compare import Comparison, compare
from nasact.outer.data import load_study_data
from nasact.study import Study
from nasact.study_model import build_study_model
from nasact.supernet import Genotype

TREE: dict[str, Any] = {
    "task": {"dataset": "digits", "model": {"name": "mlp", "hidden": [8], "dropout": 0.2}},
    "search_space": ["relu", "tanh"],
    "search": {"epochs": 1},
    "retrain": {"epochs": 2},
    "compare": {"seeds": 3},
}

SCRIPT = """
import sys
from pathlib import Path
from nasact.compare import compare
from nasact.study_model import build_study_model
from nasact.outer.data import load_study_data
from nasact.study import Study
from nasact.supernet import Genotype

if __name__ == "__main__":
    spec = Study.from_tree({tree!r}).spec
    data = load_study_data(spec)
    print("started", flush=True)
    import nasact.compare.worker_pool

    nasact.compare.worker_pool.WORTH_SECONDS = 0.0
    compare(spec, data, Genotype.uniform(build_study_model(spec, data), "relu"), directory=Path(sys.argv[1]), workers=2)
"""


@pytest.fixture(autouse=True)
def _workers_are_always_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasact.compare.worker_pool.WORTH_SECONDS", 0.0)


def compared(workers: int, directory: Path) -> Comparison:
    spec = Study.from_tree(TREE).spec
    data = load_study_data(spec)
    genotype = Genotype.uniform(build_study_model(spec, data), "tanh")
    return compare(spec, data, genotype, directory=directory, workers=workers)


def numbers(comparison: Comparison) -> Any:
    document = json.loads(json.dumps(comparison.to_dict()))
    for variant in document["variants"].values():
        variant.pop("seconds")
    return document | {"model_path": None}


def test_two_workers_give_the_numbers_of_one_process(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    alone, together = compared(1, tmp_path / "one"), compared(2, tmp_path / "two")
    assert numbers(together) == numbers(alone)
    assert (tmp_path / "two" / "model.pt").read_bytes() == (tmp_path / "one" / "model.pt").read_bytes()


def test_little_work_starts_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasact.compare.worker_pool.WORTH_SECONDS", 3600.0)
    monkeypatch.delattr("nasact.compare.worker_pool.ProcessPoolExecutor")
    assert compared(2, tmp_path).variants["derived"].test_accuracies


def children(parent: int) -> list[int]:
    listed = Path(f"/proc/{parent}/task/{parent}/children")
    return [int(process) for process in listed.read_text().split()]


def alive(process: int) -> bool:
    status = Path(f"/proc/{process}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_workers_of_a_killed_process_end_too(tmp_path: Path) -> None:
    tree = TREE | {"retrain": {"epochs": 100}}
    script = tmp_path / "run.py"
    script.write_text(SCRIPT.format(tree=tree))
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    deadline = time.monotonic() + 60
    while len(children(process.pid)) < 3 and time.monotonic() < deadline:  # two workers and a resource tracker
        time.sleep(0.2)
    workers = children(process.pid)
    assert len(workers) >= 3
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(map(alive, workers))
    process.stdout.close()
