"""`layer_mean`: pulls the units of a site to their mean and to a benchmark function. Knows only mixture weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nasact.bilevel.regularisers.base import REGULARISERS, LossName, RegulariserContext, SearchSetting
from nasact.errors import StudyError, did_you_mean
from nasact.reserved_names import ORIGINAL


@dataclass(frozen=True, kw_only=True)
class LayerMean:
    """Two pulls on mixture weights p_ijk (unit i of site j, candidate k), after paper 003's layer-wise regularisation.

    The first, with lambda_j, is to the mean of the m_j units of the same site; at level `layer` a site has one unit,
    and this pull is zero. The second, with delta, is to p_k0, the weights with only the benchmark function: a
    candidate's name, or `original`, the model's own function at that site. Both are means over the units of a site.

    lambda_j is `coefficient`, times entry j of `per_site` if that is given: one entry per site, in the order in which
    the model applies the sites.
    """

    name: ClassVar[str] = "layer_mean"
    source: ClassVar[str] = "paper 003, layer-wise regularisation for activation parameters"
    formula: ClassVar[str] = (
        "sum_j lambda_j / m_j sum_ik (p_ijk - mean_i p_ijk)^2 + delta sum_j 1 / m_j sum_ik (p_ijk - p_k0)^2"
    )
    target_loss: ClassVar[LossName] = "validation"

    coefficient: float = 0.1
    delta: float = 0.0
    benchmark: str = ORIGINAL
    per_site: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for option, value in (("coefficient", self.coefficient), ("delta", self.delta)):
            if not (math.isfinite(value) and value >= 0):
                raise StudyError(f"{option} must be a number of at least 0, but got {value}")
        if any(not (math.isfinite(value) and value >= 0) for value in self.per_site):
            raise StudyError(f"per_site must hold numbers of at least 0, but got {list(self.per_site)}")
        if self.delta == 0 and self.coefficient == 0:
            raise StudyError("coefficient must be above 0 if delta is 0: the penalty would be zero")

    def refusal(self, setting: SearchSetting) -> str | None:
        if setting.level == "layer" and self.delta == 0:
            return (
                "at level 'layer' a site has one vector, which is its own mean: use level channel or neuron, or delta"
            )
        if self.delta == 0 or setting.functions is None:
            return None
        benchmark = setting.original if self.benchmark == ORIGINAL else self.benchmark
        if benchmark is None or benchmark in setting.functions:
            return None
        near = did_you_mean(benchmark, setting.functions)
        return f"its benchmark {benchmark!r} is not among the candidates {', '.join(setting.functions)}.{near}".rstrip(
            "."
        )

    def __call__(self, context: RegulariserContext) -> Tensor:
        if self.per_site and len(self.per_site) != len(context.p):
            raise StudyError(
                f"regulariser 'layer_mean': per_site needs one entry for each of {len(context.p)} sites, "
                f"but got {len(self.per_site)}"
            )
        factors = self.per_site or (1.0,) * len(context.p)
        terms = []
        for (site, p), factor in zip(context.p.items(), factors, strict=True):
            units = p.reshape(-1, p.shape[-1])
            term = self.coefficient * factor * _spread(units, units.mean(0, keepdim=True))
            benchmark = context.originals[site] if self.benchmark == ORIGINAL else self.benchmark
            if self.delta and benchmark in context.functions[site]:  # the search may have dropped the benchmark
                vertex = torch.zeros_like(units[0])
                vertex[context.functions[site].index(benchmark)] = 1.0
                term = term + self.delta * _spread(units, vertex)
            terms.append(term)
        return torch.stack(terms).sum()


def _spread(units: Tensor, centre: Tensor) -> Tensor:
    """Return the mean over the units (m, K) of the squared distance to `centre`."""
    return (units - centre).square().sum(-1).mean()


REGULARISERS.register("layer_mean", LayerMean)
