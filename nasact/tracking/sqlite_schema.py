"""Checks of an SQLite tracking database before it is opened for writing: is it MLflow's, and of which schema revision?

Knows files and SQLite, not MLflow: the caller passes the expected revision.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from nasact.errors import StoreError

_OTHER_STORE = "give another store with --tracking-uri"


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`.lock, waiting for it if necessary; a killed process releases it."""
    lock = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise StoreError(f"{path}: the folder cannot be written to ({error.strerror}); {_OTHER_STORE}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read_revision(path: Path) -> str | None:
    """The schema revision of an MLflow database; None if the file is missing or empty. StoreError for other files."""
    if path.is_dir():
        raise StoreError(f"{path}: expected a database file, but it is a folder; move it away, or {_OTHER_STORE}")
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); {_OTHER_STORE}") from None
    if not head:
        return None
    if head != b"SQLite format 3\0":
        raise StoreError(f"{path}: not an SQLite database; move it away, or {_OTHER_STORE}")
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=20)) as database:
            tables = sorted(row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'"))
            rows = database.execute("SELECT version_num FROM alembic_version").fetchall() if _is_mlflow(tables) else []
    except sqlite3.Error as error:
        raise StoreError(f"{path}: a damaged SQLite database ({error}); move it away, or {_OTHER_STORE}") from None
    if not tables:
        return None
    if len(rows) != 1:
        names = ", ".join(tables[:4]) + (", ..." if len(tables) > 4 else "")
        raise StoreError(f"{path}: not a database of MLflow (its tables: {names}); move it away, or {_OTHER_STORE}")
    return str(rows[0][0])


def _is_mlflow(tables: list[str]) -> bool:
    # Other programs have an alembic_version too; `experiments` and `runs` have been MLflow's since its first schema.
    return {"alembic_version", "experiments", "runs"} <= set(tables)


def require_revision(path: Path, revision: str, *, newest: str, known: set[str], version: str) -> None:
    """StoreError if the schema `revision` of the database at `path` is not `newest`, which MLflow `version` writes.

    `known`: all revisions that this version of MLflow can upgrade from.
    """
    if revision == newest:
        return
    if revision in known:
        raise StoreError(
            f"{path}: has the schema {revision} of an older MLflow, but MLflow {version} needs {newest}; "
            f"copy the file, then run: mlflow db upgrade sqlite:///{path}"
        )
    raise StoreError(
        f"{path}: has the schema {revision}, which is unknown to MLflow {version} (written by a newer one?); "
        f"update mlflow, move the file away, or {_OTHER_STORE}"
    )
