"""`weights`: how concentrated the mixture weights are, and the share of identity in them. Needs no data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from nasact import activations
from nasact.errors import StudyError
from nasact.monitors.base import MONITORS, Collapse, EpochMetrics, MonitorContext
from nasact.reserved_names import ORIGINAL
from nasact.training.metrics import Direction


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Entropy (nats), largest weight and share of identity of the normalised weights |p| / sum |p|.

    `entropy.SITE` and `max_weight.SITE` are means over the rows of a site, `max_weight` is the mean over sites.
    `identity_mass`, in [0, 1], is the share of identity: the mean over rows, then over sites. A search whose mixtures
    become identity has collapsed, as DARTS collapses on skip connections. `most_identity`: the share above which a
    collapse is detected; 1, the default: never.
    """

    name: ClassVar[str] = "weights"
    source: ClassVar[str] = "the collapse on skip connections of arXiv:1909.09656 and arXiv:1909.06035"
    summary: ClassVar[str] = "entropy and largest weight of each site, and the share of identity"
    cost: ClassVar[str] = "none"
    metrics: ClassVar[Mapping[str, Direction]] = {
        "entropy.*": "low",
        "max_weight.*": "high",
        "max_weight": "high",
        "identity_mass": "low",
    }
    needs_precheck: ClassVar[bool] = False

    most_identity: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.most_identity <= 1:
            raise StudyError(f"most_identity must be above 0 and at most 1, but got {self.most_identity}")

    def first_epoch(self) -> int:
        return 1

    def precheck(self, context: MonitorContext) -> None:
        pass

    def measure(self, context: MonitorContext) -> dict[str, float]:
        mixtures = context.supernet.mixtures()
        shares = {site: _shares(mixture.weights()) for site, mixture in mixtures.items()}
        largest = {site: float(share.amax(-1).mean()) for site, share in shares.items()}
        identity = [
            sum(float(shares[site][..., k].mean()) for k, name in enumerate(mixture.names) if is_identity(name))
            for site, mixture in mixtures.items()
        ]
        metrics = {f"entropy.{site}": entropy for site, entropy in context.supernet.entropy().items()}
        metrics |= {f"max_weight.{site}": weight for site, weight in largest.items()}
        metrics["max_weight"] = sum(largest.values()) / len(largest)
        metrics["identity_mass"] = sum(identity) / len(identity)
        return {name: value for name, value in metrics.items() if math.isfinite(value)}

    def detect_collapse(self, history: Sequence[EpochMetrics]) -> Collapse | None:
        mass = history[-1].metrics.get("identity_mass") if history else None
        if mass is None or self.most_identity == 1 or mass <= self.most_identity:
            return None
        epoch = history[-1].epoch
        reason = f"identity holds {mass:.3g} of the mixture weights, more than {self.most_identity:.3g}"
        return Collapse(monitor=self.name, epoch=epoch, last_healthy_epoch=epoch - 1, reason=reason)

    def earliest_collapse(self, warmup: int) -> int | None:
        return None if self.most_identity == 1 else warmup + 1


def is_identity(function: str) -> bool:
    """Whether this candidate function returns its input, as a skip connection does."""
    return function != ORIGINAL and activations.get(function).formula == "x"


def _shares(p: Tensor) -> Tensor:
    """|p| / sum |p| of each row, in float64."""
    magnitude = p.abs().double()
    return magnitude / magnitude.sum(-1, keepdim=True).clamp_min(1e-30)


MONITORS.register("weights", Weights)
