"""A real MLflow database for every test (created once, then copied), and a study whose events a tracker receives."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nasact.tracking import MLflowTracker, StudyInfo, Tracker
from nasact.tracking.mlflow import silence_mlflow

PNG = b"\x89PNG\r\n\x1a\n" + bytes(1000)


@dataclass
class Played:
    """What `play` reported to a tracker."""

    info: StudyInfo
    params: dict[str, Any]
    epochs: int
    statuses: dict[int, str]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's schema: creating one takes seconds, copying it does not."""
    folder = tmp_path_factory.mktemp("template")
    MLflowTracker(f"sqlite:///{folder}/mlflow.db", directory=folder / "run")
    return folder / "mlflow.db"


@pytest.fixture
def database(template: Path, tmp_path: Path) -> Path:
    path = tmp_path / "store" / "mlflow.db"
    path.parent.mkdir()
    shutil.copy(template, path)
    return path


@pytest.fixture
def make_tracker(database: Path, tmp_path: Path) -> Callable[..., MLflowTracker]:
    """Builds a new tracker, as a new process would: same store, same study directory."""

    def make(**options: Any) -> MLflowTracker:
        return MLflowTracker(f"sqlite:///{database}", directory=tmp_path / "study", **options)

    return make


@pytest.fixture
def info() -> StudyInfo:
    return StudyInfo(
        name="digits",
        fingerprint="f00d",
        yaml="name: digits\n",
        tags={"seed": "0", "git": "deadbeef", "command": "nasact search digits"},
    )


@pytest.fixture
def play_trial() -> Callable[..., None]:
    """Reports one trial to a tracker, from start to end."""

    def play(
        tracker: Tracker, number: int, status: str = "complete", *, epochs: int = 3, params: Mapping[str, Any] = {}
    ) -> None:
        tracker.trial_started(number, f"key-{number}", {"search.epochs": 3, "search.lr": 0.01 * number, **params})
        for epoch in range(1, epochs + 1):
            metrics = {"loss": 1.0 / epoch, "val_accuracy": 0.5 + 0.1 * epoch}
            tracker.trial_report(number, {"phase": "search", "epoch": epoch, "metrics": metrics})
        tracker.trial_finished(
            number,
            status,
            {"derived_val_accuracy": 0.9 + number / 100, "gap": 0.01},
            {"genotype.json": f'{{"trial": {number}}}'},
            lambda: {"weights": PNG, "shapes.png": PNG},
            "loss is nan in epoch 3" if status == "failed" else None,
        )

    return play


@pytest.fixture
def play(info: StudyInfo, play_trial: Callable[..., None]) -> Callable[..., Played]:
    """Reports a whole study to a tracker: a complete, a pruned and a failed trial, and the comparison."""

    def play_study(tracker: Tracker) -> Played:
        tracker.study_started(info)
        statuses = {0: "complete", 1: "pruned", 2: "failed"}
        for number, status in statuses.items():
            play_trial(tracker, number, status)
        tracker.comparison_finished(
            {"test_accuracy/derived": 0.95, "test_accuracy/relu": 0.94},
            {"comparison.md": "| a |"},
            lambda: {"bars": PNG},
        )
        tracker.study_finished("complete")
        return Played(info, {"search.epochs": 3}, 3, statuses)

    return play_study


@dataclass
class Store:
    """The content of a store, read by a separate client."""

    client: Any

    def runs(self) -> list[Any]:
        experiments = [experiment.experiment_id for experiment in self.client.search_experiments()]
        return list(self.client.search_runs(experiments, max_results=1000))

    def study(self) -> Any:
        (run,) = [run for run in self.runs() if run.data.tags["nasact.kind"] == "study"]
        return run

    def trials(self) -> dict[int, Any]:
        """The runs of the trials by number; asserts that no number occurs twice."""
        runs = [run for run in self.runs() if run.data.tags["nasact.kind"] == "trial"]
        numbers = [int(run.data.tags["nasact.trial"]) for run in runs]
        assert len(set(numbers)) == len(numbers)
        return dict(sorted(zip(numbers, runs, strict=True)))

    def history(self, run: Any, name: str) -> list[tuple[int, float]]:
        return sorted((point.step, point.value) for point in self.client.get_metric_history(run.info.run_id, name))

    def text(self, run: Any, name: str, folder: Path) -> str:
        folder.mkdir(exist_ok=True)
        return Path(self.client.download_artifacts(run.info.run_id, name, str(folder))).read_text()

    def files(self, run: Any) -> set[str]:
        return {file.path for file in self.client.list_artifacts(run.info.run_id)}


@pytest.fixture
def read_store() -> Callable[[str], Store]:
    def read(uri: str) -> Store:
        # MLflow emits warnings when a process contacts a store for the first time.
        with silence_mlflow():
            from mlflow import MlflowClient

            client = MlflowClient(uri, registry_uri=uri)
            client.search_experiments(max_results=1)
        return Store(client)

    return read


@pytest.fixture
def store(database: Path, read_store: Callable[[str], Store]) -> Store:
    return read_store(f"sqlite:///{database}")
