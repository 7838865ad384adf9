"""The study's directory: one process at a time, the same study or a refusal, and files that are never half-written."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from outer_standin import Standin, execute, locked_by_another_process, read, reproducible, study

from nasact.errors import StoreError
from nasact.files import read_json, write_json
from nasact.outer.store import StudyDirectory, study_names


def test_a_study_is_stored_as_resolved_and_found_by_its_name(tmp_path: Path) -> None:
    resolved = study()
    with StudyDirectory.open_for(resolved, tmp_path) as store:
        assert store.study_file.read_text() == resolved.to_yaml()
        assert store.path == tmp_path / "runs" / "standin"
    assert study_names(tmp_path) == ("standin",)
    assert StudyDirectory.existing(tmp_path, "standin").read_study_tree() == resolved.tree


def test_an_unknown_study_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="There are no studies in"):
        StudyDirectory.existing(tmp_path, "standin")
    StudyDirectory.open_for(study(), tmp_path).close()
    with pytest.raises(StoreError, match=r"study 'standing' has not been run here\. Did you mean 'standin'\?"):
        StudyDirectory.existing(tmp_path, "standing")


def test_a_study_that_never_started_a_trial_may_be_corrected(tmp_path: Path) -> None:
    StudyDirectory.open_for(study(), tmp_path).close()
    corrected = study(search__epochs=5)
    StudyDirectory.open_for(corrected, tmp_path).close()
    assert StudyDirectory.existing(tmp_path, "standin").read_study_tree() == corrected.tree


def test_a_changed_study_under_an_old_name_is_refused_with_the_difference(tmp_path: Path) -> None:
    execute(study(outer__trials=1), tmp_path, Standin())
    with pytest.raises(StoreError) as refused:
        StudyDirectory.open_for(study(search__epochs=5, retrain__epochs=7), tmp_path)
    assert str(refused.value).splitlines() == [
        f"study 'standin' in {tmp_path}/runs/standin was made with other settings:",
        "  search.epochs: 4 -> 5",
        "  retrain.epochs: 1 -> 7",
        "Give this study another name (`name:` or --name), or rerun with --fresh.",
    ]
    assert StudyDirectory.existing(tmp_path, "standin").read_study_tree() == study(outer__trials=1).tree


def test_the_number_of_trials_and_the_comparison_may_change(tmp_path: Path) -> None:
    StudyDirectory.open_for(study(), tmp_path).close()
    changed = study(outer__trials=99, compare={"seeds": 2, "baselines": ["relu"]})
    StudyDirectory.open_for(changed, tmp_path).close()
    assert StudyDirectory.existing(tmp_path, "standin").read_study_tree() == changed.tree


def test_fresh_sets_the_earlier_run_aside_and_deletes_nothing(tmp_path: Path) -> None:
    first = execute(study(outer__trials=1), tmp_path, Standin())
    changed = study(search__epochs=5)
    with StudyDirectory.open_for(changed, tmp_path, fresh=True):
        assert read(changed, tmp_path) == []
        with pytest.raises(StoreError, match="is being run by process"):
            StudyDirectory.open_for(changed, tmp_path)
    runs = tmp_path / "runs"
    (runs / "standin").rename(runs / "standin.new")
    (runs / "standin.old-1").rename(runs / "standin")
    assert reproducible(read(study(), tmp_path)) == reproducible(first)


def test_one_process_runs_a_study_and_a_second_one_names_it(tmp_path: Path) -> None:
    with (
        locked_by_another_process(tmp_path / "runs" / "standin" / "lock") as holder,
        pytest.raises(StoreError, match=f"is being run by process {holder}: wait for it"),
    ):
        StudyDirectory.open_for(study(), tmp_path)
    with StudyDirectory.open_for(study(), tmp_path) as store:
        assert store.lock_file.read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("content", [b"no database at all, only text" * 40, b"SQLite format 3\x00" + b"\xff" * 4096])
def test_a_corrupt_database_is_refused_in_one_line_and_not_changed(content: bytes, tmp_path: Path) -> None:
    StudyDirectory.open_for(study(), tmp_path).close()
    database = tmp_path / "runs" / "standin" / "study.db"
    database.write_bytes(content)
    with pytest.raises(StoreError) as refused:
        execute(study(outer__trials=1), tmp_path, Standin())
    assert str(refused.value).startswith(f"{database}: ")
    assert "--fresh" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert database.read_bytes() == content
    with pytest.raises(StoreError):
        read(study(), tmp_path)


def test_a_database_of_another_program_is_refused_and_not_changed(tmp_path: Path) -> None:
    StudyDirectory.open_for(study(), tmp_path).close()
    database = tmp_path / "runs" / "standin" / "study.db"
    _execute(database, "CREATE TABLE recipes (name TEXT)")
    before = database.read_bytes()
    with pytest.raises(StoreError, match="a database of another program"):
        execute(study(outer__trials=1), tmp_path, Standin())
    assert database.read_bytes() == before


def test_a_database_of_another_optuna_version_is_refused(tmp_path: Path) -> None:
    execute(study(outer__trials=1), tmp_path, Standin())
    database = tmp_path / "runs" / "standin" / "study.db"
    _execute(database, "UPDATE alembic_version SET version_num = 'v9.9.9'")
    with pytest.raises(StoreError) as refused:
        execute(study(outer__trials=2), tmp_path, Standin())
    assert "another version of optuna" in str(refused.value)
    assert "\n" not in str(refused.value)
    _execute(database, "UPDATE alembic_version SET version_num = 'v3.2.0.a'")


def test_a_study_file_that_holds_no_study_is_refused(tmp_path: Path) -> None:
    execute(study(outer__trials=1), tmp_path, Standin())
    for text in ("", "- a\n- b\n", "a: [", "\x00"):
        (tmp_path / "runs" / "standin" / "study.yaml").write_text(text)
        with pytest.raises(StoreError, match=r"study\.yaml"):
            StudyDirectory.open_for(study(), tmp_path)


def test_json_holds_null_for_nan_and_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"mean": float("nan"), "rows": ((1, float("inf")), [0.5]), "text": "é"})
    assert read_json(path) == {"mean": None, "rows": [[1, None], [0.5]], "text": "é"}
    for text in ("", "[1]", "{"):
        path.write_text(text)
        with pytest.raises(StoreError, match=r"a\.json"):
            read_json(path)


def test_a_directory_that_cannot_be_created_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where a folder is needed")
    with pytest.raises(StoreError, match="cannot be created"):
        StudyDirectory.open_for(study(), tmp_path)


def _execute(database: Path, statement: str) -> None:
    connection = sqlite3.connect(database)
    with connection:
        connection.execute(statement)
    connection.close()
