"""All monitors of one search: they measure, tell a collapse, and the best alpha is kept to roll back to.

Its whole state is a value, so that a search that was killed goes on to the bit.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from nasact.monitors.base import Collapse, Measured, Monitor, Seen
from nasact.supernet import Supernet
from nasact.supernet.derivation import TopK
from nasact.training.batches import Labelled
from nasact.training.loop import Epoch, SearchRun
from nasact.training.metrics import Loss
from nasact.training.seeds import RandomStream, derive_seed

OnCollapse = Literal["report", "stop", "roll_back"]


@dataclass(kw_only=True)
class Watch:
    """`monitors` over a search with `warmup` epochs in which alpha rests: nothing can collapse in them.

    `roll_back` goes back to the mixtures (alpha, betas, who was dropped) after the epoch with the best validation
    accuracy, the earliest among equals, of those after the warm-up that the collapse leaves sound. So `kept` holds each
    epoch that was better than all before it. The network weights stay as they are: a derivation that trains goes on
    from them.
    """

    monitors: tuple[Monitor, ...]
    on_collapse: OnCollapse = "report"
    warmup: int = 0
    top_k: TopK = 1
    kept: list[dict[str, Any]] = field(default_factory=list)

    def require(self, supernet: Supernet, loss: Loss, val: Labelled, seed: int) -> None:
        """StudyError, with the reason, where a monitor cannot measure searches of this supernet. Takes no step."""
        seen = Seen(supernet=supernet, loss=loss, val=val, seed=seed, top_k=self.top_k)
        with RandomStream(derive_seed(seed, "monitors")):
            for monitor in self.monitors:
                monitor.require(seen)

    def measured(self, run: SearchRun, val: Labelled, epoch: Epoch) -> Epoch:
        """`epoch` with the metrics of all monitors; what they took is part of its seconds."""
        started = time.perf_counter()
        metrics = dict(epoch.metrics)
        # in a stream of their own: a model that draws in evaluation must not shift the search's
        with RandomStream(derive_seed(run.seed, "monitors", epoch.epoch)):
            for monitor in self.monitors:
                metrics |= monitor.measure(
                    Seen(
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
        self._keep(run.supernet, epoch)
        return replace(epoch, metrics=metrics)

    def _keep(self, supernet: Supernet, epoch: Epoch) -> None:
        accuracy = epoch.metrics["val_accuracy"]
        if self.on_collapse != "roll_back" or epoch.epoch <= self.warmup:
            return
        if not self.kept or accuracy > self.kept[-1]["val_accuracy"]:
            mixtures = {
                site: {name: tensor.detach().clone() for name, tensor in mixture.state_dict().items()}
                for site, mixture in supernet.mixtures().items()
            }
            self.kept.append({"epoch": epoch.epoch, "val_accuracy": accuracy, "mixtures": mixtures})

    def collapse(self, history: Iterable[Measured]) -> Collapse | None:
        """The first collapse in these epochs of the search: a pure function of their metrics."""
        after = [epoch for epoch in history if epoch.epoch > self.warmup]
        for end in range(1, len(after) + 1):
            found = self._collapsed(after[:end])
            if found is not None:
                return found
        return None

    def _collapsed(self, history: Sequence[Measured]) -> Collapse | None:
        return next((found for monitor in self.monitors if (found := monitor.collapsed(history)) is not None), None)

    def ends(self, collapse: Collapse | None) -> bool:
        """Whether the search is over."""
        return collapse is not None and self.on_collapse != "report"

    def told(self, collapse: Collapse | None, *, derived: bool = True) -> dict[str, Any] | None:
        """The collapse and what followed from it, in plain types; None where there was none.

        Before a genotype is `derived`, as in a trial that a pruner ends, nothing has followed yet.
        """
        if collapse is None:
            return None
        sound = self._sound(collapse) if derived else None
        action = "stopped" if derived and self.on_collapse != "report" else "reported"
        action = action if sound is None else "rolled back"
        return {**asdict(collapse), "action": action, "rolled_back_to": None if sound is None else sound["epoch"]}

    def roll_back(self, run: SearchRun, collapse: Collapse | None) -> bool:
        """Put the mixtures of the best sound epoch back, their weights into a last row of `weights_over_time`.

        False where there is no collapse, no rolling back, or no sound epoch after the warm-up: all stays as it is.
        """
        sound = self._sound(collapse)
        if sound is None:
            return False
        for site, mixture in run.supernet.mixtures().items():
            mixture.load_state_dict(sound["mixtures"][site])
        for rows in run.weights_over_time.values():
            rows.append(list(rows[sound["epoch"]]))
        return True

    def _sound(self, collapse: Collapse | None) -> dict[str, Any] | None:
        if collapse is None or self.on_collapse != "roll_back":
            return None
        return next((one for one in reversed(self.kept) if one["epoch"] <= collapse.sound), None)
