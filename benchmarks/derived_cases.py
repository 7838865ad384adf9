"""The tasks and cases of derived.py, as trees of a study, and the trainings they need. Trains nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nasact.bilevel import STRATEGIES
from nasact.study import Study, TrialSpec

IMAGES = 10_000
FUNCTIONS = ("relu", "tanh", "sigmoid", "identity", "sin", "silu")
EPOCHS = 8
Tree, Outcome = Mapping[str, Any], dict[str, Any]


@dataclass(frozen=True)
class Task:
    """A task of a study, the bank, and the epochs that every network is trained for."""

    title: str
    dataset: str
    model: Mapping[str, Any]
    images: int
    functions: tuple[str, ...] = FUNCTIONS
    epochs: int = EPOCHS


SMALL_CNN = {"name": "small_cnn", "width": 0.5}
TASKS: Mapping[str, Task] = {
    "fashion_mnist": Task("Fashion-MNIST", "fashion_mnist", SMALL_CNN, IMAGES),
    "cifar10": Task("CIFAR-10", "cifar10", SMALL_CNN, IMAGES),
}
SMOKE: Mapping[str, Task] = {"digits": Task("digits", "digits", {"name": "mlp"}, 300, ("relu", "identity"), 2)}

DRAWN = {"strategy": "gdas", "temperature": {"start": 10.0, "end": 0.1, "schedule": "linear"}}
JOINT = {"strategy": "joint", "temperature": {"start": 1.0, "end": 0.05, "schedule": "exponential"}}
DARTS = {**JOINT, "strategy": {"name": "darts", "order": 1}}
CASES: Mapping[str, Tree] = {
    "gdas": {"search": DRAWN},
    "joint, annealed": {"search": JOINT},
    "gdas, validated": {"search": DRAWN, "derive": {"method": "validated"}},
    "darts 1, annealed, perturbation": {"search": DARTS, "derive": {"method": "perturbation"}},
}
"""The keys of a study in which a case differs from the others."""
TARGET_CASE = "gdas"
"""The case with targets: nasact's default."""
SINGLES = "singles"
"""In `--only` and in the results: the trainings of one function at all sites."""
ALL_TASKS = {**TASKS, **SMOKE}


def find_case(name: str) -> Tree | None:
    """The case of this name, or the registered strategy with its defaults; None if there is neither."""
    if name in CASES or name not in STRATEGIES:
        return CASES.get(name)
    return {"search": {"strategy": name}}


def study_tree(task: Task, seed: int, case: Tree) -> dict[str, Any]:
    """The study of a case, without the path of its images."""
    return {
        "name": "derived",
        "seed": seed,
        "task": {"dataset": task.dataset, "model": dict(task.model), "train_limit": task.images, "validation": 0.2},
        "search_space": list(task.functions),
        "search": {
            "epochs": task.epochs,
            "batch_size": 64,
            "optimiser": {"name": "adam", "lr": 1e-3},
            **case.get("search", {}),
        },
        "derive": {"top_k": 1, **case.get("derive", {})},
        "retrain": {"epochs": task.epochs},
    }


def spec_of(task: Task, seed: int, case: Tree, dataset: Any) -> TrialSpec:
    tree = study_tree(task, seed, case)
    tree["task"]["dataset"] = dataset
    return Study.from_tree(tree).spec


@dataclass(frozen=True)
class Job:
    """A whole trial of the case `name`; if `name` is a function, the training of that function at all sites."""

    task: str
    name: str
    seed: int

    @property
    def case(self) -> Tree | None:
        return None if self.name in ALL_TASKS[self.task].functions else find_case(self.name)

    @property
    def title(self) -> str:
        return "-".join((self.task, *self.name.replace(",", "").split(), str(self.seed)))

    def path(self, runs: Path) -> Path:
        return runs / ("singles" if self.case is None else "trials") / f"{self.title}.json"

    def key(self) -> str:
        """All settings; for a single function only those that its training depends on."""
        tree = study_tree(ALL_TASKS[self.task], self.seed, self.case or {})
        if self.case is not None:
            return repr(tree)
        of_training = [tree["search"][part] for part in ("batch_size", "optimiser")]
        return repr((self.name, self.seed, tree["task"], of_training, tree["retrain"]))

    def cached(self, runs: Path) -> Outcome | None:
        """The outcome in its file in `runs`; None if there is none with the same settings."""
        path = self.path(runs)
        if not path.exists():
            return None
        outcome: Outcome = json.loads(path.read_text())
        return outcome if outcome["key"] == self.key() else None
