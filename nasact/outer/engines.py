"""The engines of the outer loop, by name. An engine runs the trials of a study and reads what it has recorded.

Imports no engine's library before it is used: `nasact show` has to start quickly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from nasact.registry import Registry

if TYPE_CHECKING:
    from nasact.outer.callbacks import Callbacks
    from nasact.outer.records import RunTrial, TrialRecord
    from nasact.outer.store import StudyDirectory
    from nasact.study import Study


class Engine(Protocol):
    """What executes the outer loop. The conformance suite is tests/outer/test_engine.py."""

    def run(self, study: Study, store: StudyDirectory, run_trial: RunTrial, callbacks: Callbacks) -> list[TrialRecord]:
        """Run trials until `outer.trials` are finished, continuing those in the directory; all records by number.

        The caller holds the directory's lock. KeyboardInterrupt and StoreError leave the running trial resumable.
        """
        ...

    def read(self, store: StudyDirectory) -> list[TrialRecord]:
        """All records by number; empty before the first trial. Changes nothing and needs no lock."""
        ...


@dataclass(frozen=True)
class OptunaEngine:
    """Trials one after another in this process, recorded in the study's SQLite file."""

    def run(self, study: Study, store: StudyDirectory, run_trial: RunTrial, callbacks: Callbacks) -> list[TrialRecord]:
        from nasact.outer.optuna import run_trials

        return run_trials(study, store, run_trial, callbacks)

    def read(self, store: StudyDirectory) -> list[TrialRecord]:
        from nasact.outer.optuna import read_trials

        return read_trials(store)


ENGINES: Registry[Engine] = Registry("engine")
ENGINES.register("optuna", OptunaEngine())
