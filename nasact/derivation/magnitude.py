"""`magnitude`: keeps the functions with the largest mixture weights. Needs no data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from nasact.derivation.base import DERIVATIONS, CostEstimate, DerivationContext, Derived
from nasact.supernet import derive
from nasact.supernet.top_k import TopK


@dataclass(frozen=True, kw_only=True)
class Magnitude:
    """Keep the `top_k` functions with the largest |p_k| of each row."""

    source: ClassVar[str] = "arXiv:1806.09055, section 2.4; paper 001"
    summary: ClassVar[str] = "keeps the functions with the largest weights"
    cost: ClassVar[str] = "none"
    levels: ClassVar[tuple[str, ...]] = ()

    def estimate_cost(self, sites: Sequence[tuple[int, int]]) -> CostEstimate:
        return CostEstimate()

    def derive(self, context: DerivationContext, top_k: TopK) -> Derived:
        return Derived(derive(context.supernet, top_k), {"networks": 0, "epochs": 0})


DERIVATIONS.register("magnitude", Magnitude)
