"""The loop of the outer search: ask Optuna, run one trial, tell Optuna; continue trials that a killed process left.

Drives a generator of reports and does not know what a trial computes. A study that is killed at any moment and started
again ends with the trials that it would have ended with. (`ask` and `tell` are Optuna's terms.)
"""

from __future__ import annotations

import contextlib
import math
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, Trial, TrialState

from nasact.errors import NasactError, StoreError, one_line
from nasact.files import write_text
from nasact.outer.duplicates import find_duplicate
from nasact.outer.optuna.pruning import TrialPruner
from nasact.outer.optuna.sampling import suggest
from nasact.outer.optuna.storage import OpenStudy, open_study, open_to_read, reported_epochs
from nasact.outer.plan import planned_trials
from nasact.outer.records import OBJECTIVE, RunTrial, TrialRecord, best_so_far
from nasact.outer.store import StudyDirectory

if TYPE_CHECKING:
    from pathlib import Path

    from nasact.outer.callbacks import Callbacks
    from nasact.results import TrialResult
    from nasact.study import Study, TrialSpec

MAX_ATTEMPTS = 3


def run_trials(study: Study, store: StudyDirectory, run_trial: RunTrial, callbacks: Callbacks) -> list[TrialRecord]:
    """Run trials until `outer.trials` are finished, continuing those in the directory; all records by number.

    The caller holds the directory's lock. KeyboardInterrupt and StoreError leave the running trial resumable.
    """
    total = planned_trials(study, callbacks)
    with open_study(store, study) as database:
        _TrialLoop(study, store, run_trial, callbacks, database).run(total)
        return database.records()


def read_trials(store: StudyDirectory) -> list[TrialRecord]:
    """All records by number, without running or changing anything."""
    if not store.database.exists():
        return []
    with open_to_read(store) as database:
        return database.records() if database else []


class _TrialLoop:
    """One process's work on a study whose database is open."""

    def __init__(
        self, study: Study, store: StudyDirectory, run_trial: RunTrial, callbacks: Callbacks, database: OpenStudy
    ) -> None:
        self.study = study
        self.store = store
        self.run_trial = run_trial
        self.callbacks = callbacks
        self.database = database

    def run(self, total: int) -> None:
        earlier = self.database.records()
        best = best_so_far(earlier)
        self.callbacks.study_started(
            total,
            finished=sum(record.finished for record in earlier),
            best=None if best is None or best.value is None else (best.value, best.number),
        )
        interrupted = self.database.trials(TrialState.RUNNING)
        while sum(frozen.state.is_finished() for frozen in self.database.trials()) < total:
            self._attempt(interrupted.pop(0) if interrupted else self._ask())

    def _ask(self) -> FrozenTrial:
        """A new trial."""
        number = self.database.optuna_study.ask().number
        return self.database.trials()[number]

    def _attempt(self, frozen: FrozenTrial) -> None:
        """Run one trial to its end, whether it is new or was left RUNNING by a process that was killed."""
        trial = self.database.trial(frozen.number)
        params = {name: suggest(trial, name, parameter) for name, parameter in self.study.parameters.items()}
        self.callbacks.trial_started(trial.number, params)
        epochs, attrs = reported_epochs(frozen), frozen.user_attrs
        # Only attempts without progress count: a long trial may be interrupted any number of times.
        earlier_attempts = attrs.get("attempts", 0) if epochs == attrs.get("attempted_at", 0) else 0
        if earlier_attempts >= MAX_ATTEMPTS:
            self._fail(trial, f"the process was killed {earlier_attempts} times after epoch {epochs} of this trial")
            return
        if attrs or epochs:
            self.callbacks.message(f"trial {trial.number} was interrupted: continuing it after epoch {epochs}")
        trial.set_user_attr("attempted_at", epochs)
        trial.set_user_attr("attempts", earlier_attempts + 1)
        try:
            self._run(trial, frozen, params)
        except BaseException:
            # An orderly end (Ctrl-C, a full disk) does not count as an attempt. The trial stays RUNNING.
            with contextlib.suppress(Exception):
                trial.set_user_attr("attempts", earlier_attempts)
            raise

    def _run(self, trial: Trial, frozen: FrozenTrial, params: Mapping[str, Any]) -> None:
        try:
            spec = self.study.fill(params)
        except NasactError as error:
            self._fail(trial, str(error))
            return
        key = spec.key()
        trial.set_user_attr("key", key)
        duplicate = find_duplicate(self.database.records(), key)
        if duplicate is not None:
            trial.set_user_attr("reused_from", duplicate)
        directory = self.store.trial_directory(key)
        warmup = spec.search.warmup
        if warmup:
            trial.set_user_attr("warmup", warmup)
        pruner = None
        if duplicate is None:
            pruner = TrialPruner(self.database.optuna_study, self.study, trial, frozen, warmup)
        self._finish(trial, self._drive(trial, spec, directory, pruner))

    def _drive(self, trial: Trial, spec: TrialSpec, directory: Path, pruner: TrialPruner | None) -> TrialResult:
        """Run the trial's generator to its end. An exception in it fails the trial; an error of the disk is raised."""
        prune: bool | None = None
        with contextlib.closing(self.run_trial(spec, directory)) as reports:
            while True:
                try:
                    report = reports.send(prune)
                except StopIteration as end:
                    result: TrialResult = end.value
                    return result
                except StoreError:
                    raise
                except OSError as error:
                    raise StoreError(
                        f"{directory}: {one_line(error)}; run the same command again to continue"
                    ) from error
                except Exception as error:
                    # One configuration may be impossible (no memory for its batch size); the others need not be.
                    write_text(directory / "error.txt", traceback.format_exc())
                    kind = "" if isinstance(error, NasactError) else f"{type(error).__name__}: "
                    return _failed_result(f"{kind}{one_line(error)}")
                self.callbacks.report(trial.number, report)
                prune = pruner.should_prune(report) if pruner else False

    def _finish(self, trial: Trial, result: TrialResult) -> None:
        value = result.metrics.get(OBJECTIVE, math.nan)
        if result.status == "complete" and not math.isfinite(value):
            self._fail(trial, f"{OBJECTIVE} is {value}")
            return
        if result.status == "failed":
            trial.set_user_attr("reason", result.reason or "unknown")
        # Stored after the callback: a kill in between repeats the callback rather than leaving it out.
        self.callbacks.trial_finished(trial.number, result)
        if result.status == "complete":
            self.database.optuna_study.tell(trial, value)
        else:
            state = TrialState.PRUNED if result.status == "pruned" else TrialState.FAIL
            self.database.optuna_study.tell(trial, state=state)

    def _fail(self, trial: Trial, reason: str) -> None:
        self._finish(trial, _failed_result(reason))


def _failed_result(reason: str) -> TrialResult:
    # imported here because results need torch, and reading a study must not wait for that
    from nasact.results import TrialResult

    return TrialResult(
        status="failed", reason=reason, genotype=None, metrics={}, history=[], weights_over_time={}, spec={}
    )
