"""One trial's reports: stored, shown to the pruner, and answered as if nothing had ever interrupted the trial."""

from __future__ import annotations

from typing import TYPE_CHECKING

import optuna
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, Trial

from nasact.outer.optuna.sampling import build_pruner
from nasact.outer.optuna.storage import epochs_of

if TYPE_CHECKING:
    from nasact.study import Study
    from nasact.trial import Report


class TrialPruner:
    """Hears one trial's reports, from its first epoch on: a trial that continues repeats what it reported before.

    Steps count the epochs after the first `warmup`: before alpha moves, trials that differ in alpha's settings are
    equal, and a pruner would choose among them by lot.
    """

    def __init__(
        self, optuna_study: optuna.Study, study: Study, trial: Trial, frozen: FrozenTrial, warmup: int = 0
    ) -> None:
        # here, because monitors need torch, and who only reads a study must not wait for it
        from nasact.monitors import better, build_monitors

        self._metric = study.spec.outer.prune_by
        # Optuna compares intermediate values in the direction of the objective
        self._sign = 1.0 if better(self._metric, build_monitors(study.spec.search.monitors)) == "high" else -1.0
        self._trial = trial
        self._warmup = warmup
        self._known = epochs_of(frozen)
        self._heard = 0
        self._last = frozen.last_step or 0
        self._pruned_at_last = False
        if self._last:
            # Hyperband stores that a rung was reached before its answer can be acted upon; asked a second time, it
            # answers for the next rung. So ask a copy that was never asked; and the real one, to store the rung.
            self._pruned_at_last = _asked_again(optuna_study, study, frozen)
            trial.should_prune()

    def prunes(self, report: Report) -> bool:
        """Whether the trial is to stop after this report."""
        self._heard += 1
        step = report.epoch - self._warmup
        if report.phase != "search" or step < 1:
            self._count()
            return False
        if step < self._last:
            return False
        if self._metric not in report.metrics:  # not every metric is measured after every epoch
            self._count()
            return False
        if step == self._last:
            return self._pruned_at_last
        self._trial.report(self._sign * report.metrics[self._metric], step)
        return self._trial.should_prune()

    def _count(self) -> None:
        """Remember an epoch of which the pruner hears nothing."""
        if self._heard > self._known:
            self._trial.set_user_attr("epochs", self._heard)


def _asked_again(optuna_study: optuna.Study, study: Study, frozen: FrozenTrial) -> bool:
    """What the pruner says to the last stored report of `frozen`: all that came before it, replayed in memory."""
    replay = optuna.create_study(
        study_name=optuna_study.study_name,
        direction="maximize",
        sampler=RandomSampler(seed=0),
        pruner=build_pruner(study),
    )
    replay.add_trials(optuna_study.get_trials(deepcopy=False)[: frozen.number])
    trial = replay.ask()
    decision = False
    for step, value in sorted(frozen.intermediate_values.items()):
        trial.report(value, step)
        decision = trial.should_prune()
    return decision
