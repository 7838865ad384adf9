"""`discretisation`: the validation accuracy that pruning would cost now, without retraining."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from nasact.errors import Divergence, GenotypeError, MixtureError
from nasact.monitors.base import MONITORS, Collapse, EpochMetrics, MonitorContext
from nasact.options import require_at_least
from nasact.supernet.fixed_weights import FixedWeightSupernet
from nasact.supernet.top_k import derive_weights
from nasact.training.metrics import Direction, evaluate


@dataclass(frozen=True, kw_only=True)
class Discretisation:
    """The mixture's validation accuracy minus that of the same supernet pruned to the study's `top_k`.

    The supernet is pruned by magnitude and the kept weights are renormalised, as in `derive`. Network weights and betas
    stay as they are: the monitor does not show what retraining would recover. Accuracies are fractions; the gap is
    negative where pruning helps. An epoch has no gap if its weights cannot be pruned (weights of both signs that
    cancel, fewer remaining candidates than `top_k`) or if the pruned network has no finite loss.
    """

    name: ClassVar[str] = "discretisation"
    source: ClassVar[str] = "the discretisation gap of arXiv:1909.09656, section 4.2, and paper 001"
    summary: ClassVar[str] = "validation accuracy of the mixture minus that of the pruned supernet"
    cost: ClassVar[str] = "one validation every `every` epochs"
    metrics: ClassVar[Mapping[str, Direction]] = {"discretisation_gap": "low", "pruned_val_accuracy": "high"}
    needs_precheck: ClassVar[bool] = False

    every: int = 1

    def __post_init__(self) -> None:
        require_at_least("every", self.every)

    def first_epoch(self) -> int:
        return self.every

    def precheck(self, context: MonitorContext) -> None:
        pass

    def measure(self, context: MonitorContext) -> dict[str, float]:
        if context.epoch % self.every:
            return {}
        try:
            pruned = derive_weights(context.supernet, context.top_k)
            fixed = FixedWeightSupernet.copy_of(context.supernet)
            for site, mixture in fixed.mixtures.items():
                mixture.set_weights(pruned[site])
            accuracy = evaluate(fixed.network, context.val, loss=context.loss, place="pruned supernet").accuracy
        except (Divergence, GenotypeError, MixtureError):
            return {}
        gap = context.metrics["val_accuracy"] - accuracy
        return {"discretisation_gap": gap, "pruned_val_accuracy": accuracy}

    def detect_collapse(self, history: Sequence[EpochMetrics]) -> Collapse | None:
        return None

    def earliest_collapse(self, warmup: int) -> int | None:
        return None


MONITORS.register("discretisation", Discretisation)
