"""A trial that costs nothing: a deterministic function of its spec that keeps the rules of the real one.

It writes a checkpoint after every epoch, repeats its earlier reports when it continues, and returns a finished result
without working again. Run as a script it executes a study in processes that it kills.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from nasact.outer.callbacks import Callbacks, NullCallbacks
from nasact.outer.engines import ENGINES
from nasact.outer.records import TrialRecord
from nasact.outer.store import StudyDirectory
from nasact.results import Report, TrialResult
from nasact.study import Study, TrialSpec

TREE: dict[str, Any] = {
    "name": "standin",
    "task": {"dataset": "digits", "model": {"name": "mlp", "hidden": [8]}},
    "search_space": ["relu", "tanh", "identity"],
    "search": {
        "strategy": {"name": "darts", "order": 1, "lr": {"low": 1e-4, "high": 1e-1, "log": True}},
        "temperature": {"low": 0.2, "high": 2.0},
        "epochs": 4,
        "batch_size": {"choice": [16, 32, 64]},
    },
    "retrain": {"epochs": 1},
    "outer": {"trials": 12, "sampler": "tpe", "pruner": "hyperband"},
}


def study(engine: str = "optuna", **changes: Any) -> Study:
    """TREE for `engine`, with `section__key=value` replaced."""
    tree = json.loads(json.dumps(TREE))
    for path, value in changes.items():
        *sections, key = path.split("__")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[key] = value
    tree["outer"]["engine"] = engine
    return Study.from_tree(tree)


def quality(spec: TrialSpec) -> float:
    lr = float(spec.search.strategy.options.get("lr", 3e-3))
    return 0.9 - 0.1 * abs(math.log10(lr) + 2) - 0.05 * abs(spec.search.temperature.start - 0.7)


def build_result(status: str, history: list[Report], spec: TrialSpec, reason: str | None = None) -> TrialResult:
    metrics = {"derived_val_accuracy": quality(spec)} if status == "complete" else {}
    return TrialResult(
        status=status,  # type: ignore[arg-type]
        reason=reason,
        genotype=None,
        metrics=metrics,
        history=[vars(report) for report in history],
        weights_over_time={},
        spec=spec.to_tree(),
    )


class Standin:
    """`run_trial` with a log of the epochs that it computed.

    `before_epoch` is called with the spec and the number of each epoch that is about to be computed.
    """

    def __init__(self, pause: float = 0.0, *, before_epoch: Callable[[TrialSpec, int], None] | None = None) -> None:
        self.pause = pause
        self.before_epoch = before_epoch
        self.computed: list[tuple[str, int]] = []

    def __call__(self, spec: TrialSpec, directory: Path) -> Generator[Report, bool | None, TrialResult]:
        checkpoint = directory / "checkpoint.json"
        done = json.loads(checkpoint.read_text()) if checkpoint.exists() else 0
        total = spec.search.epochs + spec.retrain.epochs
        history: list[Report] = []
        for index in range(1, total + 1):
            if index > done:
                if self.before_epoch is not None:
                    self.before_epoch(spec, index)
                time.sleep(self.pause)
                self.computed.append((spec.key(), index))
                _replace(checkpoint, str(index))
            history.append(_report(spec, index))
            if (yield history[-1]):
                return build_result("pruned", history, spec)
        return build_result("complete", history, spec)


def _report(spec: TrialSpec, index: int) -> Report:
    epochs = spec.search.epochs
    if index > epochs:
        return Report("retrain", index - epochs, spec.retrain.epochs, {"val_accuracy": quality(spec)})
    return Report("search", index, epochs, {"val_accuracy": quality(spec) * (1 - 0.5**index)})


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)


class RecordingCallbacks(NullCallbacks):
    """What an engine called."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.started: list[int] = []
        self.finished: list[tuple[int, str]] = []
        self.totals: list[tuple[int, int, tuple[float, int] | None]] = []

    def study_started(self, total: int, *, finished: int = 0, best: tuple[float, int] | None = None) -> None:
        self.totals.append((total, finished, best))

    def trial_started(self, number: int, params: Any) -> None:
        self.started.append(number)

    def trial_finished(self, number: int, result: Any) -> None:
        self.finished.append((number, result.status))

    def message(self, text: str) -> None:
        self.messages.append(text)


def execute(study: Study, root: Path, run_trial: Any, callbacks: Callbacks | None = None) -> list[TrialRecord]:
    """Run the study under `root` with the engine that it names."""
    with StudyDirectory.open_for(study, root) as store:
        return ENGINES.get(study.spec.outer.engine).run(study, store, run_trial, callbacks or NullCallbacks())


def read(study: Study, root: Path) -> list[TrialRecord]:
    """The records of the study under `root`, read by the engine that it names."""
    return ENGINES.get(study.spec.outer.engine).read(StudyDirectory.existing(root, study.name))


def reproducible(records: list[TrialRecord]) -> list[tuple[Any, ...]]:
    """What must not depend on interruptions."""
    return [
        (record.number, record.status, record.params, record.key, record.value, record.reused_from, record.epochs)
        for record in records
    ]


@contextlib.contextmanager
def locked_by_another_process(path: Path) -> Iterator[int]:
    """The id of a process that holds the lock file `path` until the block ends."""
    program = "import fcntl, os, sys; f = open(sys.argv[1], 'a+'); fcntl.flock(f, fcntl.LOCK_EX); "
    program += "f.truncate(0); f.write(str(os.getpid())); f.flush(); print('held', flush=True); sys.stdin.read()"
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process.pid
        process.stdin.close()


def kill_repeatedly(study: Study, root: Path, kills: int) -> int:
    """Run the study in forked processes, SIGKILL each after a little work; how many were killed before their end."""
    moments = random.Random(study.spec.seed)
    log = root / "log"
    log.touch()
    killed = 0
    for _ in range(kills):
        worker = os.fork()
        if worker == 0:
            execute(study, root, Standin(pause=0.003, before_epoch=lambda spec, index: _append(log)))
            os._exit(0)
        enough = log.stat().st_size + moments.randint(1, 5)
        ended, status = 0, 0
        while not ended and log.stat().st_size < enough:
            time.sleep(0.001)
            ended, status = os.waitpid(worker, os.WNOHANG)
        if not ended:
            time.sleep(moments.uniform(0, 0.04))
            os.kill(worker, signal.SIGKILL)
            _, status = os.waitpid(worker, 0)
        killed += os.WIFSIGNALED(status)
    return killed


def kill_in_first_epoch(study: Study, root: Path, kills: int) -> int:
    """Run the study in forked processes that kill themselves in a trial's first epoch; how many did."""
    killed = 0
    for _ in range(kills):
        worker = os.fork()
        if worker == 0:
            execute(study, root, Standin(before_epoch=lambda spec, index: os.kill(os.getpid(), signal.SIGKILL)))
            os._exit(0)
        killed += os.WIFSIGNALED(os.waitpid(worker, 0)[1])
    return killed


def _append(log: Path) -> None:
    with log.open("a") as file:
        file.write(".")


KILLERS = {"repeatedly": kill_repeatedly, "in_first_epoch": kill_in_first_epoch}


def run_killer(killer: str, root: Path, kills: int, engine: str, **changes: Any) -> int:
    """Call one of KILLERS in a process that starts without threads (pytest's may have some); its result."""
    root.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, __file__, killer, str(root), str(kills), engine, json.dumps(changes)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert process.stderr == ""
    return process.returncode


if __name__ == "__main__":
    killer, folder, number, engine, changes = sys.argv[1:]
    # what is imported here need not be imported by each fork
    execute(study(engine, outer__trials=1), Path(folder) / "warm", Standin())
    sys.exit(KILLERS[killer](study(engine, **json.loads(changes)), Path(folder), int(number)))
