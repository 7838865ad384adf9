"""A whole study for real, in small: digits, an MLP, a few epochs; finished, continued, interrupted, tracked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from nasact.errors import StoreError, StudyError, SurgeryError
from nasact.outer.callbacks import NullCallbacks
from nasact.outer.provenance import collect_provenance, git_commit, provenance_tags
from nasact.outer.run import StudyResult, run_study
from nasact.outer.store import StudyDirectory
from nasact.outer.study_view import load_study_view
from nasact.outer.trained_network import load_network
from nasact.report.trials_table import trials_table
from nasact.results import Report
from nasact.study import Study
from nasact.tracking import NullTracker
from nasact.training.metrics import evaluate


def small_study(**changes: Any) -> Study:
    """The shipped study `digits`, with the budget of a test."""
    tree = Study.load("digits").tree
    tree["task"] |= {"model": {"name": "mlp", "hidden": [12]}, "train_limit": 240, "test_limit": 120}
    tree["search_space"] = ["relu", "tanh"]
    tree["search"] |= {"epochs": 2, "warmup": 0}
    tree["retrain"] |= {"epochs": 2}
    tree["compare"] |= {"seeds": 2}
    tree["outer"] |= {"trials": 3, "pruner": "none"}
    for section, change in changes.items():
        tree[section] = tree[section] | change if isinstance(change, dict) else change
    return Study.from_tree(tree)


class RecordingCallbacks(NullCallbacks):
    """The calls of a study; optionally with an interrupt after the n-th report."""

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.reports: list[tuple[int, str, int]] = []
        self.compared: list[tuple[int, int, str]] = []
        self.messages: list[str] = []
        self.interrupt_after = interrupt_after

    def report(self, number: int, report: Report) -> None:
        self.reports.append((number, report.phase, report.epoch))
        if len(self.reports) == self.interrupt_after:
            raise KeyboardInterrupt

    def compare_progress(self, done: int, total: int, label: str) -> None:
        self.compared.append((done, total, label))

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    return run_study(small_study(), root=tmp_path_factory.mktemp("finished"))


def without_times(document: Mapping[str, Any]) -> dict[str, Any]:
    plain = json.loads(json.dumps({key: value for key, value in document.items() if key != "provenance"}))
    plain["study"].pop("directory")
    plain.pop("exports")
    for trial in plain["trials"]["records"]:
        trial["metrics"] = {name: value for name, value in trial["metrics"].items() if not name.endswith("seconds")}
    return plain


def test_a_study_leaves_a_result_that_can_be_read_again(finished: StudyResult) -> None:
    document = json.loads((finished.directory / "result.json").read_text())
    assert document == finished.document
    assert document["trials"]["counts"] == {"complete": 3, "pruned": 0, "failed": 0, "running": 0, "reused": 0}
    assert document["trials"]["best"] == finished.best.number
    assert document["accuracy"]["validation_derived"] == finished.best.value
    assert document["accuracy"]["test"]["n"] == 2
    assert set(document["variants"]) == {"derived", "original", "best_single", "random_mixture"}
    assert document["gap"] == finished.trial.metrics["gap"]
    assert {"python", "torch", "numpy", "optuna", "nasact"} <= set(document["provenance"]["versions"])
    assert finished.data.test.openings == 1


def test_a_finished_study_is_viewed_in_plain_forms(finished: StudyResult) -> None:
    view = load_study_view(finished.directory.parent.parent, "digits")
    assert view.document == finished.document
    assert view.records == finished.records
    assert view.best == finished.best
    assert view.genotype == finished.trial.to_dict()["genotype"]
    assert view.comparison == json.loads(json.dumps(finished.comparison.to_dict()))
    assert len(trials_table(view.trials).rows) == 3
    assert all(trial["metrics"]["search_val_accuracy"] > 0 for trial in view.trials)


def test_the_saved_network_is_the_one_that_was_compared(finished: StudyResult) -> None:
    store = StudyDirectory.existing(finished.directory.parent.parent, "digits")
    network = load_network(store)
    assert not network.module.training
    assert network.genotype == finished.trial.genotype
    accuracy = evaluate(network.module, finished.data.test.open(), place="test").accuracy
    assert accuracy == finished.comparison.variants["derived"].test_accuracies[0]


def test_running_a_finished_study_again_trains_nothing(finished: StudyResult) -> None:
    callbacks = RecordingCallbacks()
    before = {path: path.stat().st_mtime_ns for path in finished.directory.rglob("checkpoint*")}
    again = run_study(small_study(), root=finished.directory.parent.parent, callbacks=callbacks)
    assert callbacks.reports == []
    assert len(callbacks.compared) > 0
    assert again.document == finished.document
    assert {path: path.stat().st_mtime_ns for path in finished.directory.rglob("checkpoint*")} == before


@pytest.mark.parametrize("after", [2, 7])
def test_an_interrupted_study_continues_to_the_same_result(after: int, finished: StudyResult, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_study(small_study(), root=tmp_path, callbacks=RecordingCallbacks(interrupt_after=after))
    view = load_study_view(tmp_path, "digits")
    assert view.document is None
    assert [record.status for record in view.records].count("running") == 1
    continued = run_study(small_study(), root=tmp_path)
    assert without_times(continued.document) == without_times(finished.document)


def test_a_result_that_was_removed_is_computed_again(finished: StudyResult, tmp_path: Path) -> None:
    shutil.copytree(finished.directory, tmp_path / "runs" / "digits")
    removed = tmp_path / "runs" / "digits" / "trials" / str(finished.best.key) / "result.json"
    removed.unlink()
    callbacks = RecordingCallbacks()
    again = run_study(small_study(), root=tmp_path, callbacks=callbacks)
    assert callbacks.reports == []
    assert removed.exists()
    assert without_times(again.document) == without_times(finished.document)


class BrokenTracker(NullTracker):
    """Every call raises, which the protocol forbids."""

    @property
    def run_ids(self) -> Any:
        raise OSError("no run ids")

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_") or name == "tracking_uri":
            return super().__getattribute__(name)
        raise OSError(f"no {name}")


def test_a_tracker_that_fails_cannot_stop_a_study(finished: StudyResult, tmp_path: Path) -> None:
    callbacks = RecordingCallbacks()
    result = run_study(small_study(), root=tmp_path, tracker=BrokenTracker(), callbacks=callbacks)
    assert without_times(result.document) == without_times(finished.document)
    assert callbacks.messages == ["tracking failed (OSError: no study_started); the study goes on"]


class RecordingTracker(NullTracker):
    """Records the calls; renders the figures, as a real tracker does."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.reports = 0
        self.figures: list[set[str]] = []
        self.info: Any = None

    def study_started(self, info: Any) -> None:
        self.info = info
        self.calls.append("study_started")

    def trial_report(self, number: int, report: Mapping[str, Any]) -> None:
        self.reports += 1

    def trial_finished(
        self, number: int, status: str, metrics: Any, texts: Any, figures: Any, reason: str | None
    ) -> None:
        self.calls.append(f"trial {number} {status} {sorted(texts)}")
        self.figures.append(set(figures()))

    def comparison_finished(self, metrics: Any, texts: Any, figures: Any) -> None:
        self.calls.append("comparison_finished")
        assert "test_accuracy/derived" in metrics
        self.figures.append(set(figures()))

    def register_model(
        self, module: torch.nn.Module, example: torch.Tensor, name: str, alias: str = "champion"
    ) -> str | None:
        assert module(example).shape == (3, 10)
        self.calls.append(f"model {name}")
        return "models:/digits/1"

    def study_finished(self, status: str) -> None:
        self.calls.append(status)


def test_the_tracker_gets_the_calls_that_the_callbacks_get(tmp_path: Path) -> None:
    tracker, callbacks = RecordingTracker(), RecordingCallbacks()
    study = small_study(outer={"trials": 2}, compare={"seeds": 1, "baselines": ["relu"]}, search={"init": "original"})
    result = run_study(study, root=tmp_path, tracker=tracker, callbacks=callbacks)
    assert tracker.calls == [
        "study_started",
        "trial 0 complete ['genotype.json']",
        "trial 1 complete ['genotype.json']",
        "comparison_finished",
        "model digits",
        "complete",
    ]
    assert tracker.reports == len(callbacks.reports) == 2 * 4
    trial = {"weights_over_time.png", "final_weights.png", "learned_shapes.png"}
    assert tracker.figures == [trial, trial, {"accuracies.png", "learned_shapes.png"}]
    assert tracker.info.name == "digits"
    assert Study.from_yaml(tracker.info.yaml) == study
    assert {"seed", "command", "threads", "version.torch"} <= set(tracker.info.tags)
    assert result.model_uri == "models:/digits/1"


def test_a_study_in_which_every_trial_diverges_ends_with_the_reason(tmp_path: Path) -> None:
    tracker = RecordingTracker()
    study = small_study(search={"optimiser": {"name": "sgd", "lr": 1e30}}, outer={"trials": 2})
    with pytest.raises(StudyError, match=r"none of its 2 trials completed: .*search epoch 1.*--fresh"):
        run_study(study, root=tmp_path, tracker=tracker)
    assert tracker.calls[-1] == "failed"
    view = load_study_view(tmp_path, "digits")
    assert [record.status for record in view.records] == ["failed"] * 2


def test_a_model_without_sites_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    callbacks = RecordingCallbacks()
    with pytest.raises(SurgeryError):
        run_study(small_study(sites={"include": ["nowhere*"]}), root=tmp_path, callbacks=callbacks)
    assert callbacks.reports == []


def test_a_network_file_that_cannot_be_read_is_refused_in_one_line(finished: StudyResult, tmp_path: Path) -> None:
    with StudyDirectory.open_for(small_study(), tmp_path) as store:
        with pytest.raises(StoreError, match="there is no network yet"):
            load_network(store)
        whole = (finished.directory / "model.pt").read_bytes()
        for content in (b"", b"nothing", whole[: len(whole) // 2]):
            store.model_file.write_bytes(content)
            with pytest.raises(StoreError, match=r"model\.pt: cannot be read"):
                load_network(store)


def test_provenance_names_commit_versions_and_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provenance = collect_provenance(7)
    assert provenance.seed == 7
    assert provenance.versions["torch"] == torch.__version__
    assert provenance.cpus is not None
    assert provenance.cpus >= 1
    assert provenance.seconds is None
    tags = provenance_tags(provenance)
    assert tags["version.torch"] == torch.__version__
    assert {"seed", "command", "platform", "cpus", "threads"} <= set(tags)
    assert not {"seconds", "versions"} & set(tags)
    assert all(isinstance(value, str) for value in tags.values())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit() is None
    monkeypatch.setenv("PATH", "")
    assert git_commit() is None
