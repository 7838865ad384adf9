"""Whether a trial is pruned: its reports are stored and shown to the study's pruner. `outer.prune_by` is the metric.

An interrupted trial gets the same decisions as an uninterrupted one. Which pruner a study has: sampling.build_pruner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import optuna
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, Trial

from nasact.outer.optuna.sampling import build_pruner
from nasact.outer.optuna.storage import reported_epochs

if TYPE_CHECKING:
    from nasact.results import Report
    from nasact.study import Study


class TrialPruner:
    """The pruner's decisions for one trial, which starts at its first epoch: a continued trial repeats its reports.

    Steps count the epochs after the first `warmup` epochs. In the warm-up alpha is not updated: trials that differ in
    settings of alpha are equal, and a pruner would choose among them at random.
    """

    def __init__(
        self, optuna_study: optuna.Study, study: Study, trial: Trial, frozen: FrozenTrial, warmup: int = 0
    ) -> None:
        # imported here because monitors need torch, and reading a study must not wait for that
        from nasact.monitors import build_monitors, metric_direction

        self._metric = study.spec.outer.prune_by
        # Optuna compares intermediate values in the direction of the objective
        direction = metric_direction(self._metric, build_monitors(study.spec.search.monitors))
        self._sign = 1.0 if direction == "high" else -1.0
        self._trial = trial
        self._warmup = warmup
        self._stored_epochs = reported_epochs(frozen)
        self._reports = 0
        self._last_step = frozen.last_step or 0
        self._pruned_at_last_step = False
        if self._last_step:
            # Hyperband stores that a trial reached a rung before the caller can act on its decision; called again, it
            # decides for the next rung. So a copy of the trial repeats the decision, and the trial itself stores it.
            self._pruned_at_last_step = _repeat_decision(optuna_study, study, frozen)
            trial.should_prune()

    def should_prune(self, report: Report) -> bool:
        """Whether the trial stops after this report."""
        self._reports += 1
        step = report.epoch - self._warmup
        if report.phase != "search" or step < 1:
            self._store_epoch()
            return False
        if step < self._last_step:
            return False
        if self._metric not in report.metrics:  # some metrics are not measured after every epoch
            self._store_epoch()
            return False
        if step == self._last_step:
            return self._pruned_at_last_step
        self._trial.report(self._sign * report.metrics[self._metric], step)
        return self._trial.should_prune()

    def _store_epoch(self) -> None:
        """Count an epoch that is not reported to the pruner."""
        if self._reports > self._stored_epochs:
            self._trial.set_user_attr("epochs", self._reports)


def _repeat_decision(optuna_study: optuna.Study, study: Study, frozen: FrozenTrial) -> bool:
    """The pruner's decision at the last stored report of `frozen`, from a replay of the study in memory."""
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
