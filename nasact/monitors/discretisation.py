"""`discretisation`: what pruning would cost now, before any retraining. Judges on validation data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from nasact.errors import Divergence, GenotypeError, MixtureError
from nasact.monitors.base import Better, Collapse, EpochMetrics, MonitorContext, require_whole
from nasact.supernet.derivation import derived_weights
from nasact.supernet.probe import Probe
from nasact.training.metrics import evaluate


@dataclass(frozen=True, kw_only=True)
class Discretisation:
    """The mixture's validation accuracy minus that of the same supernet pruned to the study's `top_k`.

    Pruned by magnitude with the kept weights renormalised, as `derive` does; network weights and betas stay, nothing
    is retrained: what retraining can mend is not known to it. Fractions; below 0 where pruning helps.
    An epoch whose weights cannot be pruned so (weights of both signs that cancel, fewer candidates left than `top_k`),
    or whose pruned network has no finite loss, has no such metric.
    """

    name: ClassVar[str] = "discretisation"
    source: ClassVar[str] = "the discretisation gap of arXiv:1909.09656, section 4.2, and paper 001"
    summary: ClassVar[str] = "validation accuracy of the mixture minus that of the pruned supernet"
    cost: ClassVar[str] = "one validation every `every` epochs"
    metrics: ClassVar[Mapping[str, Better]] = {"discretisation_gap": "low", "pruned_val_accuracy": "high"}
    needs_precheck: ClassVar[bool] = False

    every: int = 1

    def __post_init__(self) -> None:
        require_whole("every", self.every)

    def first_epoch(self) -> int:
        return self.every

    def precheck(self, context: MonitorContext) -> None:
        pass

    def measure(self, context: MonitorContext) -> dict[str, float]:
        if context.epoch % self.every:
            return {}
        try:
            pruned = derived_weights(context.supernet, context.top_k)
            probe = Probe.of(context.supernet)
            for site, slot in probe.slots.items():
                slot.put(pruned[site])
            accuracy = evaluate(probe.network, context.val, loss=context.loss, place="pruned supernet").accuracy
        except (Divergence, GenotypeError, MixtureError):
            return {}
        gap = context.metrics["val_accuracy"] - accuracy
        return {"discretisation_gap": gap, "pruned_val_accuracy": accuracy}

    def detect_collapse(self, history: Sequence[EpochMetrics]) -> Collapse | None:
        return None

    def earliest_collapse(self, warmup: int) -> int | None:
        return None
