"""A real trial that takes a second: part of the digits, a small mlp, a handful of epochs."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
import torch

from nasact.results import Report, TrialResult
from nasact.study import Study, TrialSpec
from nasact.tasks import Data, load_data

TREE: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "task": {"dataset": "digits", "model": {"name": "mlp", "hidden": [16, 16]}, "train_limit": 300, "test_limit": 200},
    "search_space": ["relu", "tanh", "sigmoid", "identity"],
    "search": {
        "strategy": {"name": "darts", "order": 2, "lr": 0.03},
        "temperature": {"start": 1.0, "end": 0.2, "schedule": "exponential"},
        "epochs": 3,
        "batch_size": 32,
        "optimiser": {"name": "adam", "lr": 0.005},
    },
    "retrain": {"epochs": 4},
    "compare": {"seeds": 3},
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The same numbers in this process and in every other process of a test, whatever the number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def merged(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`tree` with `changes`; sections are merged, a component (with a `name`) is replaced."""
    result = dict(tree)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict) and "name" not in value
        result[key] = merged(result[key], value) if both else value
    return result


@pytest.fixture(scope="session")
def make_spec() -> Callable[..., TrialSpec]:
    def make(**changes: Any) -> TrialSpec:
        return Study.from_tree(merged(TREE, changes)).spec

    return make


@pytest.fixture(scope="session")
def spec(make_spec: Callable[..., TrialSpec]) -> TrialSpec:
    return make_spec()


@pytest.fixture(scope="session")
def load() -> Callable[[TrialSpec], Data]:
    def load(spec: TrialSpec) -> Data:
        task = spec.task
        return load_data(
            task.dataset.name,
            task.dataset.options,
            validation=task.validation,
            seed=spec.seed,
            data_dir=None,
            train_limit=task.train_limit,
            test_limit=task.test_limit,
        )

    return load


@pytest.fixture
def data(spec: TrialSpec, load: Callable[[TrialSpec], Data]) -> Data:
    return load(spec)


Run = Generator[Report, bool | None, TrialResult]


def drive(
    run: Run, stop_after: int | None = None, between: Callable[[], object] = lambda: None
) -> tuple[list[Report], TrialResult]:
    """All reports and the result. Stops the trial after `stop_after` reports; calls `between` after each report."""
    reports: list[Report] = []
    stop = None
    try:
        while True:
            reports.append(run.send(stop))
            stop = len(reports) == stop_after
            between()
    except StopIteration as end:
        return reports, end.value


@pytest.fixture(scope="session")
def driver() -> Callable[..., tuple[list[Report], TrialResult]]:
    return drive


def timeless(value: Any) -> Any:
    """The plain value without its times."""
    if isinstance(value, dict):
        return {key: timeless(entry) for key, entry in value.items() if not str(key).endswith("seconds")}
    return [timeless(entry) for entry in value] if isinstance(value, list) else value


@pytest.fixture(scope="session")
def facts() -> Callable[[TrialResult], dict[str, Any]]:
    """A result as plain values without its times."""
    return lambda result: timeless(result.to_dict())
