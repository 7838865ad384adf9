"""A database that cannot be used is refused before anything is computed, in one line with the next step."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nasact.errors import StoreError
from nasact.tracking import MLflowTracker
from nasact.tracking.sqlite_schema import read_revision


def _other_program(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE studies (id INTEGER)")
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES ('v3.2.0.a')")
    database.close()


def _set_revision(path: Path, number: str) -> None:
    with sqlite3.connect(path) as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (number,))
    database.close()


BAD: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "text file": (lambda path: path.write_text("this is not a database"), ("not an SQLite database",)),
    "folder": (lambda path: (path.unlink(), path.mkdir()), ("it is a folder",)),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:5000]), ("damaged SQLite database",)),
    "other program": (lambda path: (path.unlink(), _other_program(path)), ("not a database of MLflow", "studies")),
    "newer schema": (lambda path: _set_revision(path, "ffffffffffff"), ("unknown to MLflow", "update mlflow")),
    "older schema": (
        lambda path: _set_revision(path, "451aebb31d03"),
        ("older MLflow", "mlflow db upgrade sqlite:///"),
    ),
}


@pytest.mark.parametrize("damage", BAD)
def test_a_database_that_mlflow_cannot_use_is_refused_and_not_changed(
    damage: str, database: Path, make_tracker: Callable[..., MLflowTracker]
) -> None:
    damage_file, words = BAD[damage]
    damage_file(database)
    before = database.read_bytes() if database.is_file() else None
    with pytest.raises(StoreError) as caught:
        make_tracker()
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(str(database))
    assert all(word in line for word in words), line
    assert before == (database.read_bytes() if database.is_file() else None)


def test_a_folder_that_cannot_be_created_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written to"):
        MLflowTracker(f"sqlite:///{tmp_path}/file/mlflow.db", directory=tmp_path)


def test_an_empty_file_and_a_missing_one_have_no_revision(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    assert read_revision(tmp_path / "empty.db") is None
    assert read_revision(tmp_path / "missing.db") is None


START = """
import os, sys
from nasact.tracking import MLflowTracker, StudyInfo
import mlflow, mlflow.store.tracking.sqlalchemy_store  # before the fork: all children then start at the same moment

def work(number):
    tracker = MLflowTracker(sys.argv[1], directory=f"{sys.argv[2]}-{number}")
    tracker.study_started(StudyInfo(name=f"study-{number}", fingerprint=str(number)))
    tracker.trial_started(0, "k", {"lr": 0.1})
    tracker.trial_finished(0, "complete", {"accuracy": 0.5}, {}, None, None)
    tracker.study_finished("complete")
    return tracker.pending_count

children = []
for number in range(4):
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = work(number)
        finally:
            os._exit(code)
    children.append(child)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


def test_four_processes_that_start_at_once_share_a_new_database(tmp_path: Path, read_store: Callable[..., Any]) -> None:
    uri = f"sqlite:///{tmp_path}/fresh/mlflow.db"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", START, uri, str(tmp_path / "study")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("[0, 0, 0, 0]\n", 0), done.stderr
    assert "tracking:" not in done.stderr
    runs = read_store(uri).runs()
    assert len(runs) == 8
    assert {run.info.status for run in runs} == {"FINISHED"}
    # Neither files in the current directory, nor an incomplete database next to the final one.
    assert sorted(path.name for path in (tmp_path / "fresh").iterdir()) == [
        "mlartifacts",
        "mlflow.db",
        "mlflow.db.lock",
    ]
    assert not (tmp_path / "mlruns").exists()
