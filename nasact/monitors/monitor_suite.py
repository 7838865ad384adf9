"""All monitors of one search: measures each epoch, detects a collapse and keeps the mixtures to roll back to.

The only state is the list `best_epochs` of plain values and tensors: a killed search continues bit-identically.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from nasact.monitors.base import Collapse, EpochMetrics, Monitor, MonitorContext
from nasact.supernet import Supernet
from nasact.supernet.top_k import TopK
from nasact.training.batches import LabelledExamples
from nasact.training.loop import Epoch, SearchRun
from nasact.training.metrics import Loss
from nasact.training.seeds import RandomStream, derive_seed

OnCollapse = Literal["report", "stop", "roll_back"]


@dataclass(kw_only=True)
class MonitorSuite:
    """`monitors` over a search; the first `warmup` epochs, in which alpha is not updated, cannot collapse.

    `roll_back` restores the mixtures (alpha, betas, dropped candidates) of the epoch with the best validation accuracy
    between the warm-up and the last healthy epoch; the earliest epoch wins a tie. `best_epochs` therefore holds every
    epoch that was better than all epochs before it. The network weights are not restored: a derivation that trains
    continues from the current ones.
    """

    monitors: tuple[Monitor, ...]
    on_collapse: OnCollapse = "report"
    warmup: int = 0
    top_k: TopK = 1
    best_epochs: list[dict[str, Any]] = field(default_factory=list)
    """Sorted by rising validation accuracy: `epoch`, `val_accuracy` and `mixtures` (site -> state of its mixture)."""

    def precheck(self, supernet: Supernet, loss: Loss, val: LabelledExamples, seed: int) -> None:
        """Raise StudyError, with the reason, if a monitor cannot measure this supernet. Trains nothing."""
        context = MonitorContext(supernet=supernet, loss=loss, val=val, seed=seed, top_k=self.top_k)
        with RandomStream(derive_seed(seed, "monitors")):
            for monitor in self.monitors:
                monitor.precheck(context)

    def measure(self, run: SearchRun, val: LabelledExamples, epoch: Epoch) -> Epoch:
        """`epoch` with the metrics of all monitors added; its `seconds` include the time of the monitors."""
        started = time.perf_counter()
        metrics = dict(epoch.metrics)
        # a separate random stream: a model that draws in evaluation must not shift the random numbers of the search
        with RandomStream(derive_seed(run.seed, "monitors", epoch.epoch)):
            for monitor in self.monitors:
                metrics |= monitor.measure(
                    MonitorContext(
                        supernet=run.supernet,
                        loss=run.state.loss,
                        val=val,
                        seed=run.seed,
                        top_k=self.top_k,
                        epoch=epoch.epoch,
                        metrics=epoch.metrics,
                    )
                )
        metrics["seconds"] += time.perf_counter() - started
        self._keep_if_best(run.supernet, epoch)
        return replace(epoch, metrics=metrics)

    def _keep_if_best(self, supernet: Supernet, epoch: Epoch) -> None:
        accuracy = epoch.metrics["val_accuracy"]
        if self.on_collapse != "roll_back" or epoch.epoch <= self.warmup:
            return
        if not self.best_epochs or accuracy > self.best_epochs[-1]["val_accuracy"]:
            mixtures = {
                site: {name: tensor.detach().clone() for name, tensor in mixture.state_dict().items()}
                for site, mixture in supernet.mixtures().items()
            }
            self.best_epochs.append({"epoch": epoch.epoch, "val_accuracy": accuracy, "mixtures": mixtures})

    def first_collapse(self, history: Iterable[EpochMetrics]) -> Collapse | None:
        """The first collapse in these epochs of the search: a pure function of their metrics."""
        after_warmup = [epoch for epoch in history if epoch.epoch > self.warmup]
        for end in range(1, len(after_warmup) + 1):
            collapse = self._detect_collapse(after_warmup[:end])
            if collapse is not None:
                return collapse
        return None

    def _detect_collapse(self, history: Sequence[EpochMetrics]) -> Collapse | None:
        collapses = (monitor.detect_collapse(history) for monitor in self.monitors)
        return next((collapse for collapse in collapses if collapse is not None), None)

    def ends_search(self, collapse: Collapse | None) -> bool:
        """Whether `collapse` ends the search (`on_collapse` is stop or roll_back)."""
        return collapse is not None and self.on_collapse != "report"

    def collapse_record(self, collapse: Collapse | None, *, derived: bool = True) -> dict[str, Any] | None:
        """The collapse and the action that was taken, in plain types; None without a collapse.

        `derived`: whether a genotype has been derived. Before that (a pruned trial) the only action is the report.
        """
        if collapse is None:
            return None
        target = self._roll_back_target(collapse) if derived else None
        action = "stopped" if derived and self.on_collapse != "report" else "reported"
        action = action if target is None else "rolled back"
        return {**asdict(collapse), "action": action, "rolled_back_to": None if target is None else target["epoch"]}

    def roll_back(self, run: SearchRun, collapse: Collapse | None) -> bool:
        """Restore the mixtures of the best healthy epoch and append their weights to `weights_over_time`.

        Returns False, and changes nothing, without a collapse, with another `on_collapse`, or if no epoch after the
        warm-up is healthy.
        """
        target = self._roll_back_target(collapse)
        if target is None:
            return False
        for site, mixture in run.supernet.mixtures().items():
            mixture.load_state_dict(target["mixtures"][site])
        for rows in run.weights_over_time.values():
            rows.append(list(rows[target["epoch"]]))
        return True

    def _roll_back_target(self, collapse: Collapse | None) -> dict[str, Any] | None:
        if collapse is None or self.on_collapse != "roll_back":
            return None
        healthy = (best for best in reversed(self.best_epochs) if best["epoch"] <= collapse.last_healthy_epoch)
        return next(healthy, None)
