"""The loop: ask, run one trial, tell; and the care of trials that a killed process left RUNNING.

What a trial does is none of its business: it drives a generator of reports. Killed at any moment and started again, a
study ends with the trials it would have ended with.
"""

from __future__ import annotations

import contextlib
import math
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from nasact.errors import NasactError, StoreError, one_line
from nasact.files import write_text
from nasact.outer.optuna.pruning import TrialPruner
from nasact.outer.optuna.sampling import suggest
from nasact.outer.optuna.storage import epochs_of, opened, reading, record
from nasact.outer.plan import planned
from nasact.outer.records import OBJECTIVE, RunTrial, TrialRecord, best_so_far
from nasact.outer.store import StudyDirectory

if TYPE_CHECKING:
    from pathlib import Path

    from nasact.outer.callbacks import Callbacks
    from nasact.study import Study, TrialSpec
    from nasact.trial import TrialResult

MAX_ATTEMPTS = 3


def run_trials(study: Study, store: StudyDirectory, run_trial: RunTrial, events: Callbacks) -> list[TrialRecord]:
    """Run trials until `outer.trials` are finished, continuing what the directory holds; all records, by number.

    The caller holds the directory's lock. KeyboardInterrupt and StoreError leave the running trial resumable.
    """
    total = planned(study, events)
    with opened(store, study) as optuna_study:
        _Loop(study, store, run_trial, events, optuna_study).run(total)
        return [record(frozen) for frozen in optuna_study.get_trials(deepcopy=False)]


def read_trials(store: StudyDirectory) -> list[TrialRecord]:
    """The records of a study that exists, without running or changing anything."""
    if not store.database.exists():
        return []
    with reading(store) as optuna_study:
        return [record(frozen) for frozen in optuna_study.get_trials(deepcopy=False)] if optuna_study else []


class _Loop:
    """One process's work on a study whose database is open."""

    def __init__(
        self, study: Study, store: StudyDirectory, run_trial: RunTrial, events: Callbacks, optuna_study: optuna.Study
    ) -> None:
        self.study = study
        self.store = store
        self.run_trial = run_trial
        self.events = events
        self.optuna_study = optuna_study

    def run(self, total: int) -> None:
        before = [record(frozen) for frozen in self.optuna_study.get_trials(deepcopy=False)]
        best = best_so_far(before)
        self.events.study_started(
            total,
            finished=sum(one.finished for one in before),
            best=None if best is None or best.value is None else (best.value, best.number),
        )
        interrupted = self.optuna_study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        while self._finished() < total:
            frozen = interrupted.pop(0) if interrupted else None
            self._attempt(frozen or self._asked())

    def _finished(self) -> int:
        return sum(trial.state.is_finished() for trial in self.optuna_study.get_trials(deepcopy=False))

    def _asked(self) -> FrozenTrial:
        number = self.optuna_study.ask().number
        return self.optuna_study.get_trials(deepcopy=False)[number]

    def _attempt(self, frozen: FrozenTrial) -> None:
        """Run one trial to its end, whether it is new or was left RUNNING by a process that was killed."""
        trial = Trial(self.optuna_study, frozen._trial_id)
        params = {name: suggest(trial, name, parameter) for name, parameter in self.study.parameters.items()}
        self.events.trial_started(trial.number, params)
        epochs, attrs = epochs_of(frozen), frozen.user_attrs
        # Only attempts that got no further count: a long trial may be interrupted as often as one likes.
        before = attrs.get("attempts", 0) if epochs == attrs.get("attempted_at", 0) else 0
        if before >= MAX_ATTEMPTS:
            self._fail(trial, f"the process was killed {before} times after epoch {epochs} of this trial")
            return
        if attrs or epochs:
            self.events.message(f"trial {trial.number} was interrupted: continuing it after epoch {epochs}")
        trial.set_user_attr("attempted_at", epochs)
        trial.set_user_attr("attempts", before + 1)
        try:
            self._run(trial, frozen, params)
        except BaseException:
            # An orderly end (Ctrl-C, a full disk) is none of its attempts. The trial stays RUNNING, to be continued.
            with contextlib.suppress(Exception):
                trial.set_user_attr("attempts", before)
            raise

    def _run(self, trial: Trial, frozen: FrozenTrial, params: Mapping[str, Any]) -> None:
        try:
            spec = self.study.fill(params)
        except NasactError as error:
            self._fail(trial, str(error))
            return
        key = spec.key()
        trial.set_user_attr("key", key)
        twin = self._find_duplicate(key)
        if twin is not None:
            trial.set_user_attr("reused_from", twin)
        directory = self.store.trial_directory(key)
        warmup = spec.search.warmup
        if warmup:
            trial.set_user_attr("warmup", warmup)
        pruner = None if twin is not None else TrialPruner(self.optuna_study, self.study, trial, frozen, warmup)
        self._finish(trial, self._drive(trial, spec, directory, pruner))

    def _drive(self, trial: Trial, spec: TrialSpec, directory: Path, pruner: TrialPruner | None) -> TrialResult:
        """Hear a trial to its end. What goes wrong inside it is its failure; what goes wrong on the disk is ours."""
        prune: bool | None = None
        with contextlib.closing(self.run_trial(spec, directory)) as reports:
            while True:
                try:
                    report = reports.send(prune)
                except StopIteration as stop:
                    result: TrialResult = stop.value
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
                    return _failed(f"{kind}{one_line(error)}")
                self.events.report(trial.number, report)
                prune = pruner.prunes(report) if pruner else False

    def _find_duplicate(self, key: str) -> int | None:
        """The number of a complete trial that trained the very same spec."""
        complete = self.optuna_study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return next((trial.number for trial in complete if trial.user_attrs.get("key") == key), None)

    def _finish(self, trial: Trial, result: TrialResult) -> None:
        value = result.metrics.get(OBJECTIVE, math.nan)
        if result.status == "complete" and not math.isfinite(value):
            self._fail(trial, f"{OBJECTIVE} is {value}")
            return
        if result.status == "failed":
            trial.set_user_attr("reason", result.reason or "unknown")
        # Told last: a kill in between makes the listeners hear of this end twice rather than never.
        self.events.trial_finished(trial.number, result)
        if result.status == "complete":
            self.optuna_study.tell(trial, value)
        else:
            self.optuna_study.tell(trial, state=TrialState.PRUNED if result.status == "pruned" else TrialState.FAIL)

    def _fail(self, trial: Trial, reason: str) -> None:
        self._finish(trial, _failed(reason))


def _failed(reason: str) -> TrialResult:
    from nasact.trial import TrialResult

    return TrialResult(
        status="failed", reason=reason, genotype=None, metrics={}, history=[], weights_over_time={}, spec={}
    )
