"""The study's SQLite file: opened with a write-ahead log, refused in one line if it is unusable, read as records."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

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


@dataclass(frozen=True)
class OpenStudy:
    """An Optuna study and the storage that holds it, while the database is open."""

    optuna_study: optuna.Study
    storage: RDBStorage

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """The trials in these states (default: in any) by number. They are not copied, so do not change them."""
        return self.optuna_study.get_trials(deepcopy=False, states=states or None)

    def trial(self, number: int) -> Trial:
        """Trial `number` to report to and to set attributes of, also if another process started it."""
        study_id = self.storage.get_study_id_from_name(self.optuna_study.study_name)
        return Trial(self.optuna_study, self.storage.get_trial_id_from_study_id_trial_number(study_id, number))

    def records(self) -> list[TrialRecord]:
        return [to_record(frozen) for frozen in self.trials()]


@contextlib.contextmanager
def open_study(store: StudyDirectory, study: Study) -> Iterator[OpenStudy]:
    """The Optuna study in the directory's database; both are created if they do not exist."""
    with _open_database(store, create=True) as storage:
        optuna_study = optuna.create_study(
            storage=storage,
            study_name=store.name,
            direction="maximize",
            load_if_exists=True,
            sampler=build_sampler(study),
            pruner=build_pruner(study),
        )
        yield OpenStudy(optuna_study, storage)


@contextlib.contextmanager
def open_to_read(store: StudyDirectory) -> Iterator[OpenStudy | None]:
    """The same without creating anything; None if a process was killed between creating database and study."""
    with _open_database(store, create=False) as storage:
        names = [summary.study_name for summary in optuna.get_all_study_summaries(storage)]
        known = store.name in names
        yield OpenStudy(optuna.load_study(study_name=store.name, storage=storage), storage) if known else None


@contextlib.contextmanager
def _open_database(store: StudyDirectory, *, create: bool) -> Iterator[RDBStorage]:
    """With a write-ahead log: twice as fast as Optuna's default, and readable while it is written."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with _storage_errors(store):
        _require_optuna_tables(store.database)
        storage = RDBStorage(f"sqlite:///{store.database}", skip_table_creation=not create)
        # Optuna has connected already, without the pragmas: drop these connections.
        sqlalchemy.event.listen(storage.engine, "connect", _set_pragmas)
        storage.engine.dispose()
        try:
            yield storage
        finally:
            storage.remove_session()
            storage.engine.dispose()


def _set_pragmas(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _require_optuna_tables(path: Path) -> None:
    """Raise StoreError for a database of another program, before Optuna writes its tables into it."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with contextlib.closing(sqlite3.connect(path)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables and tables.isdisjoint({"studies", "version_info"}):
        raise StoreError(
            f"{path}: is a database of another program (tables: {', '.join(sorted(tables)[:5])}); {_REMEDY}"
        )


_REMEDY = "nothing was changed. Move it away, give the study another name (--name), or rerun with --fresh"


@contextlib.contextmanager
def _storage_errors(store: StudyDirectory) -> Iterator[None]:
    """Turn the errors of Optuna, SQLAlchemy and SQLite into a StoreError of one line."""
    try:
        yield
    except optuna.exceptions.StorageInternalError as error:
        raise StoreError(f"{store.database}: {_root_cause(error)}; {_REMEDY}") from error
    except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error) as error:
        raise StoreError(f"{store.database}: {_root_cause(error)}; {_REMEDY}") from error
    except RuntimeError as error:
        if "table schema" not in str(error):
            raise
        raise StoreError(
            f"{store.database}: was created by another version of optuna ({one_line(error)}); {_REMEDY}"
        ) from error


def _root_cause(error: BaseException) -> str:
    """SQLite's own message, without what SQLAlchemy and Optuna add to it."""
    original = getattr(error, "orig", None) or error.__cause__
    return _root_cause(original) if isinstance(original, BaseException) else one_line(error)


def to_record(frozen: FrozenTrial) -> TrialRecord:
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
        epochs=reported_epochs(frozen),
    )


def reported_epochs(frozen: FrozenTrial) -> int:
    """How many epochs the trial has reported, over both phases."""
    searched = frozen.last_step + int(frozen.user_attrs.get("warmup", 0)) if frozen.last_step else 0
    return max(searched, int(frozen.user_attrs.get("epochs", 0)))
