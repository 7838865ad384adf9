"""Worker processes of a comparison: the numbers of one process, and no worker outlives the comparison."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nasact.compare import Comparison, compare
from nasact.compare.seed_run import TrainingJob
from nasact.compare.worker_pool import WorkerPool
from nasact.errors import GenotypeError, StoreError
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

    nasact.compare.worker_pool.MIN_PARALLEL_SECONDS = 0.0
    compare(spec, data, Genotype.uniform(build_study_model(spec, data), "relu"), directory=Path(sys.argv[1]), workers=2)
"""


@pytest.fixture(autouse=True)
def _workers_always_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasact.compare.worker_pool.MIN_PARALLEL_SECONDS", 0.0)


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
    sequential, parallel = compared(1, tmp_path / "one"), compared(2, tmp_path / "two")
    assert numbers(parallel) == numbers(sequential)
    assert (tmp_path / "two" / "model.pt").read_bytes() == (tmp_path / "one" / "model.pt").read_bytes()


def test_little_work_starts_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasact.compare.worker_pool.MIN_PARALLEL_SECONDS", 3600.0)
    monkeypatch.setattr("nasact.compare.worker_pool.multiprocessing", None)
    assert compared(2, tmp_path).variants["derived"].test_accuracies


def slow_work(epochs: int = 10_000) -> tuple[WorkerPool, list[TrainingJob]]:
    """Two workers and two networks, each of which trains for minutes."""
    spec = Study.from_tree(TREE | {"retrain": {"epochs": epochs}}).spec
    data = load_study_data(spec)
    genotype = Genotype.uniform(build_study_model(spec, data), "tanh")
    return WorkerPool(spec, data, 2), [TrainingJob(genotype, seed, "test", str(seed)) for seed in range(2)]


def interrupt_after(seconds: float) -> None:
    """As Ctrl-C: SIGINT for the main thread, `seconds` after both workers were started."""
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        while len(multiprocessing.active_children()) < 2:
            time.sleep(0.01)
        time.sleep(seconds)
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also in a test run that a shell started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("seconds", [0.5, 5.0], ids=["importing", "training"])
def test_closing_after_an_interrupt_ends_all_workers_at_once(seconds: float) -> None:
    pool, jobs = slow_work()
    interrupt_after(seconds)
    with pytest.raises(KeyboardInterrupt):
        list(pool.train(jobs))
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    started = time.monotonic()
    pool.close()
    assert time.monotonic() - started < 3, "each of them has minutes of work left"
    assert not any(worker.is_alive() for worker in workers)
    assert multiprocessing.active_children() == []


def test_a_worker_that_dies_is_a_store_error() -> None:
    pool, jobs = slow_work()
    threading.Timer(1.0, lambda: multiprocessing.active_children()[0].kill()).start()
    with contextlib.closing(pool), pytest.raises(StoreError, match="worker process of the comparison died"):
        list(pool.train(jobs))


def test_what_a_job_raises_in_a_worker_is_raised_here() -> None:
    pool, jobs = slow_work(epochs=1)
    genotype = jobs[0].genotype
    wrong = replace(jobs[0], genotype=replace(genotype, sites={"nowhere": genotype.sites["act1"]}))
    with contextlib.closing(pool), pytest.raises(GenotypeError) as raised:
        list(pool.train([wrong, jobs[1]]))
    assert "in a worker process" in raised.value.__notes__[0]


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
