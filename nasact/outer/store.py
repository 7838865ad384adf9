"""A study's directory: where each file is, which process may write, and whether the study has changed.

    runs/<name>/study.yaml         the study as resolved, every default filled
                study.db           the outer loop's SQLite file
                trials/<spec key>/ one trial: checkpoint and result.json
                compare/           networks of the comparison, one file each, named by a digest of what was trained
                result.json, model.pt, lock; tracking/ belongs to the tracker

Must not know Optuna, MLflow or torch.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from nasact.errors import StoreError, StudyError, did_you_mean
from nasact.files import read_json, write_json, write_text

if TYPE_CHECKING:
    from nasact.study import Study

RUNS = "runs"


class StudyDirectory:
    """`runs/<name>` under a root. Reading needs no lock; `open_for` takes the lock for writing."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = Path(root)
        self.name = name
        self.path = self.root / RUNS / name
        self.study_file = self.path / "study.yaml"
        self.database = self.path / "study.db"
        self.trials = self.path / "trials"
        self.compare = self.path / "compare"
        self.comparison_file = self.compare / "comparison.json"
        self.result_file = self.path / "result.json"
        self.model_file = self.path / "model.pt"
        self.lock_file = self.path / "lock"
        self._lock: IO[str] | None = None

    @classmethod
    def existing(cls, root: Path, name: str) -> StudyDirectory:
        """The directory of a study that has been run, for reading; StoreError with near names if there is none."""
        store = cls(root, name)
        if not store.study_file.is_file():
            names = study_names(root)
            known = f" Studies here: {', '.join(names)}." if names else f" There are no studies in {Path(root) / RUNS}."
            raise StoreError(f"study {name!r} has not been run here.{did_you_mean(name, names)}{known}")
        return store

    @classmethod
    def open_for(cls, study: Study, root: Path, *, fresh: bool = False) -> StudyDirectory:
        """The locked directory of `study`. StoreError if it belongs to a study with other settings.

        `fresh`: an earlier directory is renamed first. Nothing is ever deleted.
        """
        store = cls(root, study.spec.name)
        store._acquire()
        try:
            if fresh and (store.study_file.exists() or store.database.exists()):
                store._set_aside()
            store._require_same_study(study)
            write_text(store.study_file, study.to_yaml())
        except BaseException:
            store.close()
            raise
        return store

    def trial_directory(self, key: str) -> Path:
        """The directory of the trial whose spec has `key`; it is created if necessary."""
        return _make_directory(self.trials / key)

    def write_result(self, document: dict[str, Any]) -> None:
        write_json(self.result_file, document)

    def read_result(self) -> dict[str, Any] | None:
        """The final result, or None before there is one."""
        if not self.result_file.exists():
            return None
        return read_json(self.result_file)

    def read_study_tree(self) -> dict[str, Any]:
        """The plain tree in study.yaml."""
        from nasact.study.source import read_file

        try:
            tree, _source = read_file(self.study_file, str(self.study_file))
        except StudyError as error:
            raise StoreError(f"{error}; give the study another name (--name), or rerun with --fresh") from None
        return tree

    def close(self) -> None:
        """Release the lock. The file is not removed: else two processes could lock two files of the same name."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> StudyDirectory:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _acquire(self) -> None:
        """Take the lock and write this process's id into it; StoreError, with the other's id, if it is taken."""
        _make_directory(self.path)
        try:
            handle = self.lock_file.open("a+", encoding="utf-8")
        except OSError as error:
            raise StoreError(f"{self.lock_file}: cannot be opened ({error.strerror or error})") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            handle.close()
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise StoreError(f"{self.lock_file}: cannot be locked ({error.strerror or error})") from error
            raise StoreError(
                f"study {self.name!r} in {self.path} is being run by process {holder}: wait for it"
            ) from None
        handle.truncate(0)
        handle.write(f"{os.getpid()}\n")
        handle.flush()
        self._lock = handle

    def _set_aside(self) -> None:
        """Rename the directory to `<name>.old-<n>`. The lock is renamed with it, so take a new one."""
        number = 1
        while (aside := self.path.with_name(f"{self.name}.old-{number}")).exists():
            number += 1
        try:
            self.path.rename(aside)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be renamed ({error.strerror or error})") from error
        self.close()
        self._acquire()

    def _require_same_study(self, study: Study) -> None:
        """Raise StoreError, with the differences, if the directory was made by a study with other settings."""
        if not self.study_file.exists() or not self.database.exists():
            return  # no trial was started: the study may be corrected after a first attempt with wrong model or data
        differences = study.differences(self.read_study_tree())
        if differences:
            lines = "\n".join(f"  {line}" for line in differences)
            raise StoreError(
                f"study {self.name!r} in {self.path} was made with other settings:\n{lines}\n"
                "Give this study another name (`name:` or --name), or rerun with --fresh."
            )


def _make_directory(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: cannot be created ({error.strerror or error})") from error
    return path


def study_names(root: Path) -> tuple[str, ...]:
    """Names of the studies that have been run under `root`, sorted."""
    return tuple(sorted(path.parent.name for path in (Path(root) / RUNS).glob("*/study.yaml")))
