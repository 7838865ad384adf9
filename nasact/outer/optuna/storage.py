"""The study's SQLite file: opened with a write-ahead log, refused in one line where it is unusable, read as records."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from nasact.errors import StoreError, one_line
from nasact.outer.optuna.sampling import build_pruner, build_sampler
from nasact.outer.records import TrialRecord
from nasact.outer.store import StudyDirectory
from nasact.trial_status import Status

if TYPE_CHECKING:
    from nasact.study import Study

_STATUS: dict[TrialState, Status] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
}


@contextlib.contextmanager
def opened(store: StudyDirectory, study: Study) -> Iterator[optuna.Study]:
    """The Optuna study in the directory's database, made if need be."""
    with _database(store, create=True) as storage:
        yield optuna.create_study(
            storage=storage,
            study_name=store.name,
            direction="maximize",
            load_if_exists=True,
            sampler=build_sampler(study),
            pruner=build_pruner(study),
        )


@contextlib.contextmanager
def reading(store: StudyDirectory) -> Iterator[optuna.Study | None]:
    """The same for looking only; None where the process that made the database was killed before it made the study."""
    with _database(store, create=False) as storage:
        names = [found.study_name for found in optuna.get_all_study_summaries(storage)]
        yield optuna.load_study(study_name=store.name, storage=storage) if store.name in names else None


@contextlib.contextmanager
def _database(store: StudyDirectory, *, create: bool) -> Iterator[RDBStorage]:
    """With a write-ahead log: twice as fast as Optuna's default, and readable while it is written."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with _storage_errors(store):
        _check(store.database)
        storage = RDBStorage(f"sqlite:///{store.database}", skip_table_creation=not create)
        # Optuna has connected already; what it opened before the pragmas is dropped.
        sqlalchemy.event.listen(storage.engine, "connect", _pragmas)
        storage.engine.dispose()
        try:
            yield storage
        finally:
            storage.remove_session()
            storage.engine.dispose()


def _pragmas(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _check(path: Path) -> None:
    """Refuse a file that is not Optuna's before Optuna writes its tables into it."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with contextlib.closing(sqlite3.connect(path)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables and tables.isdisjoint({"studies", "version_info"}):
        raise StoreError(
            f"{path}: is a database of something else (tables: {', '.join(sorted(tables)[:5])}); {_REMEDY}"
        )


_REMEDY = "nothing was changed: set it aside, give the study another name, or start anew with --fresh"


@contextlib.contextmanager
def _storage_errors(store: StudyDirectory) -> Iterator[None]:
    try:
        yield
    except optuna.exceptions.StorageInternalError as error:
        raise StoreError(f"{store.database}: {_cause(error)}; {_REMEDY}") from error
    except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error) as error:
        raise StoreError(f"{store.database}: {_cause(error)}; {_REMEDY}") from error
    except RuntimeError as error:
        if "table schema" not in str(error):
            raise
        raise StoreError(
            f"{store.database}: made by another version of optuna ({one_line(error)}); {_REMEDY}"
        ) from error


def _cause(error: BaseException) -> str:
    """What SQLite said, below what SQLAlchemy and Optuna made of it."""
    original = getattr(error, "orig", None) or error.__cause__
    return _cause(original) if isinstance(original, BaseException) else one_line(error)


def record(frozen: FrozenTrial) -> TrialRecord:
    attrs = frozen.user_attrs
    return TrialRecord(
        number=frozen.number,
        status=_STATUS[frozen.state],
        params=dict(frozen.params),
        key=attrs.get("key"),
        value=frozen.value if frozen.state == TrialState.COMPLETE else None,
        reason=attrs.get("reason"),
        reused_from=attrs.get("reused_from"),
        attempts=attrs.get("attempts", 1),
        epochs=epochs_of(frozen),
    )


def epochs_of(frozen: FrozenTrial) -> int:
    """How many epochs the trial has reported, of whichever phase."""
    searched = frozen.last_step + int(frozen.user_attrs.get("warmup", 0)) if frozen.last_step else 0
    return max(searched, int(frozen.user_attrs.get("epochs", 0)))
