"""A trial that costs nothing: a deterministic function of its spec, with the habits of the real one.

It keeps a checkpoint after every epoch, repeats its earlier reports when it continues, and returns a finished result
without working again. Run as a script it executes a study in processes that it kills.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from nasact.outer.callbacks import NullCallbacks
from nasact.outer.records import ENGINES, TrialRecord
from nasact.outer.store import StudyDirectory
from nasact.study import Study, TrialSpec
from nasact.trial import Report, TrialResult

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


def study(**changes: Any) -> Study:
    """TREE with `section__key=value` replaced."""
    tree = json.loads(json.dumps(TREE))
    for path, value in changes.items():
        *sections, key = path.split("__")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[key] = value
    return Study.from_tree(tree)


def quality(spec: TrialSpec) -> float:
    lr = float(spec.search.strategy.options.get("lr", 3e-3))
    return 0.9 - 0.1 * abs(math.log10(lr) + 2) - 0.05 * abs(spec.search.temperature.start - 0.7)


def result(status: str, history: list[Report], spec: TrialSpec, reason: str | None = None) -> TrialResult:
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
    """`run_trial` with a log of the epochs it really computed."""

    def __init__(self, pause: float = 0.0, *, at: Callable[[TrialSpec, int], None] | None = None) -> None:
        self.pause = pause
        self.at = at
        self.worked: list[tuple[str, int]] = []

    def __call__(self, spec: TrialSpec, directory: Path) -> Generator[Report, bool | None, TrialResult]:
        checkpoint = directory / "checkpoint.json"
        done = json.loads(checkpoint.read_text()) if checkpoint.exists() else 0
        total = spec.search.epochs + spec.retrain.epochs
        history: list[Report] = []
        for index in range(1, total + 1):
            if index > done:
                if self.at is not None:
                    self.at(spec, index)
                time.sleep(self.pause)
                self.worked.append((spec.key(), index))
                _replace(checkpoint, str(index))
            history.append(_report(spec, index))
            if (yield history[-1]):
                return result("pruned", history, spec)
        return result("complete", history, spec)


def _report(spec: TrialSpec, index: int) -> Report:
    epochs = spec.search.epochs
    if index > epochs:
        return Report("retrain", index - epochs, spec.retrain.epochs, {"val_accuracy": quality(spec)})
    return Report("search", index, epochs, {"val_accuracy": quality(spec) * (1 - 0.5**index)})


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def execute(made: Study, root: Path, run_trial: Any, events: Any = None) -> list[TrialRecord]:
    with StudyDirectory.open_for(made, root) as store:
        return ENGINES.get("optuna")(made, store, run_trial, events or NullCallbacks())


def shown(records: list[TrialRecord]) -> list[tuple[Any, ...]]:
    """What must not depend on interruptions."""
    return [(one.number, one.status, one.params, one.key, one.value, one.reused_from, one.epochs) for one in records]


def kill_repeatedly(made: Study, root: Path, kills: int) -> int:
    """Run the study in forked processes, SIGKILL each after a little work; how many were killed before their end."""
    moments = random.Random(made.spec.seed)
    log = root / "log"
    log.touch()
    killed = 0
    for _ in range(kills):
        worker = os.fork()
        if worker == 0:
            execute(made, root, Standin(pause=0.003, at=lambda spec, index: _append(log)))
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


def _append(log: Path) -> None:
    with log.open("a") as file:
        file.write(".")


if __name__ == "__main__":
    # forking here and not in the test: pytest's process may have threads; what is imported now, no fork has to import
    execute(study(outer__trials=1), Path(sys.argv[1]) / "warm", Standin())
    sys.exit(kill_repeatedly(study(**json.loads(sys.argv[2])), Path(sys.argv[1]), int(sys.argv[3])))
