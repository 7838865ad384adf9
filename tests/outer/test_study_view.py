"""Looking at a study that runs or has run: records come from the engine that its study.yaml names."""

from __future__ import annotations

from pathlib import Path

import pytest
from outer_standin import Standin, execute, study

from nasact.errors import StoreError
from nasact.outer.engines import Engine
from nasact.outer.records import TrialRecord
from nasact.outer.store import StudyDirectory
from nasact.outer.study_view import load_study_view
from nasact.registry import Registry


class Paper:
    """An engine that only has records."""

    records = (TrialRecord(number=0, status="complete", value=0.5), TrialRecord(number=1, status="running"))

    def run(self, *arguments: object) -> list[TrialRecord]:
        raise NotImplementedError

    def read(self, store: StudyDirectory) -> list[TrialRecord]:
        assert store.name == "standin"
        return list(self.records)


def rename_engine(root: Path, name: str) -> None:
    path = StudyDirectory.existing(root, "standin").study_file
    text = path.read_text()
    assert text.count("engine: optuna") == 1
    path.write_text(text.replace("engine: optuna", f"engine: {name}"))


def test_records_are_read_by_the_engine_of_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engines: Registry[Engine] = Registry("engine")
    engines.register("paper", Paper())
    monkeypatch.setattr("nasact.outer.study_view.ENGINES", engines)
    StudyDirectory.open_for(study(), tmp_path).close()
    rename_engine(tmp_path, "paper")
    view = load_study_view(tmp_path, "standin")
    assert view.records == list(Paper.records)
    assert view.best == Paper.records[0]


@pytest.mark.parametrize("name", ["optunna", "[optuna]", "null"])
def test_an_unknown_engine_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    execute(study(outer__trials=1), tmp_path, Standin())
    rename_engine(tmp_path, name)
    with pytest.raises(StoreError, match=r"study\.yaml: outer\.engine: unknown engine .*optuna") as refused:
        load_study_view(tmp_path, "standin")
    assert "\n" not in str(refused.value)


def test_a_study_without_records_has_no_best_trial(tmp_path: Path) -> None:
    StudyDirectory.open_for(study(), tmp_path).close()
    view = load_study_view(tmp_path, "standin")
    assert (view.records, view.best, view.genotype, view.comparison, view.document) == ([], None, None, None, None)
    assert view.to_document()["trials"]["counts"]["complete"] == 0
