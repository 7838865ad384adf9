"""A store that cannot be used is refused before anything is computed, in one line that says what to do."""

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
from nasact.tracking.database import parse_address, revision


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
    "text file": (lambda path: path.write_text("hello, this is no database"), ("not an SQLite database",)),
    "folder": (lambda path: (path.unlink(), path.mkdir()), ("it is a folder",)),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:5000]), ("damaged SQLite database",)),
    "other program": (lambda path: (path.unlink(), _other_program(path)), ("something else", "studies")),
    "newer schema": (lambda path: _set_revision(path, "ffffffffffff"), ("unknown to MLflow", "update mlflow")),
    "older schema": (
        lambda path: _set_revision(path, "451aebb31d03"),
        ("older MLflow", "mlflow db upgrade sqlite:///"),
    ),
}


@pytest.mark.parametrize("damage", BAD)
def test_a_database_that_is_not_ours_is_refused_and_left_as_it_is(
    damage: str, database: Path, make_tracker: Callable[..., MLflowTracker]
) -> None:
    spoil, words = BAD[damage]
    spoil(database)
    before = database.read_bytes() if database.is_file() else None
    with pytest.raises(StoreError) as caught:
        make_tracker()
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(str(database))
    assert all(word in line for word in words), line
    assert before == (database.read_bytes() if database.is_file() else None)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("mlflow.db", "Did you mean 'sqlite:///mlflow.db'?"),
        ("./mlruns", "sqlite:///FILE"),
        ("sqlite://", "sqlite:///FILE"),
        ("sqlite:///:memory:", "sqlite:///FILE"),
        ("sqlit:///mlflow.db", "Did you mean 'sqlite'"),
        ("file:///tmp/mlruns", "sqlite:///FILE"),
        ("http://", "sqlite:///FILE"),
        ("", "sqlite:///FILE"),
    ],
)
def test_an_address_that_no_store_answers_to_is_refused(uri: str, words: str) -> None:
    with pytest.raises(StoreError, match="--tracking-uri") as caught:
        parse_address(uri)
    assert words in str(caught.value)


def test_addresses_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    address = parse_address("sqlite:///mlflow.db")
    assert address.path == tmp_path / "mlflow.db"
    assert address.uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert address.artifacts == tmp_path / "mlartifacts"
    assert parse_address("http://localhost:5000/").uri == "http://localhost:5000"
    assert parse_address("postgresql+psycopg2://u:p@host/db").path is None


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written to"):
        MLflowTracker(f"sqlite:///{tmp_path}/file/mlflow.db", directory=tmp_path)


def test_an_empty_file_is_a_fresh_database(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    assert revision(tmp_path / "empty.db") is None
    assert revision(tmp_path / "missing.db") is None


START = """
import os, sys
from nasact.tracking import MLflowTracker, StudyInfo
import mlflow, mlflow.store.tracking.sqlalchemy_store  # once; the processes then start at the same moment

def work(number):
    tracker = MLflowTracker(sys.argv[1], directory=f"{sys.argv[2]}-{number}")
    tracker.study_started(StudyInfo(name=f"study-{number}", fingerprint=str(number)))
    tracker.trial_started(0, "k", {"lr": 0.1})
    tracker.trial_finished(0, "complete", {"accuracy": 0.5}, {}, None, None)
    tracker.study_finished("complete")
    return tracker.waiting

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


def test_four_processes_start_at_once_on_a_fresh_database(tmp_path: Path, read_store: Callable[..., Any]) -> None:
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
    # Nothing is left where the command was run, and no half-made database beside the real one.
    assert sorted(path.name for path in (tmp_path / "fresh").iterdir()) == [
        "mlartifacts",
        "mlflow.db",
        "mlflow.db.lock",
    ]
    assert not (tmp_path / "mlruns").exists()
