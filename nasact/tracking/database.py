"""Where tracking goes: tells the kinds of address apart, and looks into an SQLite file before anybody writes to it.

Knows files and SQLite, not MLflow; what the right schema is, the caller says.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nasact.errors import StoreError, did_you_mean

SERVERS = ("http", "https")
DATABASES = ("postgresql", "mysql", "mssql")
_ELSEWHERE = "give another store with --tracking-uri"


@dataclass(frozen=True)
class Address:
    """A tracking address, made absolute. `path` is the file of an SQLite database, None for everything else."""

    uri: str
    path: Path | None = None

    @property
    def is_server(self) -> bool:
        return self.uri.split(":", 1)[0] in SERVERS

    @property
    def artifacts(self) -> Path | None:
        """Where the artifacts of an SQLite store are: beside the file, wherever a command is run from."""
        return None if self.path is None else self.path.parent / "mlartifacts"


def parse_address(uri: str) -> Address:
    """StoreError for an address that no store answers to."""
    scheme, separator, rest = uri.partition("://")
    if scheme == "sqlite" and separator:
        name = rest.removeprefix("/").split("?", 1)[0]
        if not rest.startswith("/") or name in ("", ":memory:"):
            raise StoreError(f"--tracking-uri: expected sqlite:///FILE, but got {uri!r}")
        path = Path(name).expanduser().resolve()
        return Address(f"sqlite:///{path}", path)
    if separator and rest and scheme.split("+", 1)[0] in (*SERVERS, *DATABASES):
        return Address(uri.rstrip("/"))
    known = ("sqlite", *SERVERS, *DATABASES)
    hint = did_you_mean(scheme, known) if separator else f" Did you mean {'sqlite:///' + uri!r}?"
    raise StoreError(f"--tracking-uri: expected sqlite:///FILE or http(s)://HOST:PORT, but got {uri!r}.{hint}")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold `path`.lock: of several processes one at a time gets here; a killed one lets go."""
    lock = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise StoreError(f"{path}: the folder cannot be written to ({error.strerror}); {_ELSEWHERE}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def revision(path: Path) -> str | None:
    """The schema revision of an MLflow database, None where there is nothing yet; StoreError for any other file."""
    if path.is_dir():
        raise StoreError(f"{path}: expected a database file, but it is a folder; move it away, or {_ELSEWHERE}")
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); {_ELSEWHERE}") from None
    if not head:
        return None
    if head != b"SQLite format 3\0":
        raise StoreError(f"{path}: not an SQLite database; move it away, or {_ELSEWHERE}")
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=20)) as database:
            tables = sorted(row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'"))
            rows = database.execute("SELECT version_num FROM alembic_version").fetchall() if _versioned(tables) else []
    except sqlite3.Error as error:
        raise StoreError(f"{path}: a damaged SQLite database ({error}); move it away, or {_ELSEWHERE}") from None
    if not tables:
        return None
    if len(rows) != 1:
        names = ", ".join(tables[:4]) + (", ..." if len(tables) > 4 else "")
        raise StoreError(
            f"{path}: a database of something else than MLflow (tables {names}); move it away, or {_ELSEWHERE}"
        )
    return str(rows[0][0])


def _versioned(tables: list[str]) -> bool:
    # Other programs keep an alembic_version too; `experiments` and `runs` have been MLflow's since its first schema.
    return {"alembic_version", "experiments", "runs"} <= set(tables)


def check_revision(path: Path, found: str, newest: str, known: set[str], version: str) -> None:
    """StoreError where the database's schema is not the one that MLflow `version` writes."""
    if found == newest:
        return
    if found in known:
        raise StoreError(
            f"{path}: the schema {found} of an older MLflow, but MLflow {version} needs {newest}; copy the file, "
            f"then run: mlflow db upgrade sqlite:///{path}"
        )
    raise StoreError(
        f"{path}: the schema {found} is unknown to MLflow {version} (a newer one wrote it?); "
        f"update mlflow, move the file away, or {_ELSEWHERE}"
    )
