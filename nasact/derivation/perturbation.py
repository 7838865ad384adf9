"""`perturbation`: a function is worth what its removal costs. Judges on validation data, tunes on training data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from nasact.derivation.base import CostEstimate, DerivationContext, Derived, require_level
from nasact.errors import Divergence, StudyError
from nasact.options import require_choice
from nasact.supernet.derivation import TopK, genotype_of, kept_count
from nasact.supernet.probe import Probe, Slot, keep
from nasact.training.batches import permutation
from nasact.training.loop import begin_fit, fit
from nasact.training.metrics import evaluate
from nasact.training.seeds import derive_seed

By = Literal["loss", "accuracy"]


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """DARTS-PT (Wang et al. 2021, arXiv:2108.04392, Algorithm 1), site by site in random order.

    Each candidate in turn is masked, p_k = 0 with the others as they are, and the supernet validated; those whose
    removal hurts most are kept, the site takes them, and the supernet is tuned before the next site. At level channel
    the rows of a site are decided one after the other, and the supernet is tuned after the last of them.

    `epochs`: of tuning after each site but the last, network weights and betas on training data, with the search's
    optimiser from a fresh start and the mixture weights of open sites at rest (the paper trains them on).
    `by`: what is hurt, the validation loss, or the accuracy as in the paper's code (ties go by the loss).
    `rescale`: the weights that are left take over the masked one's share, so that a site keeps its scale; not in the
    paper. Without it, removing a heavy function hurts by its size alone.
    """

    source: ClassVar[str] = "DARTS-PT, arXiv:2108.04392, Algorithm 1"
    summary: ClassVar[str] = "keeps the functions whose removal hurts validation most, tuning after each site"
    cost: ClassVar[str] = "one validation a candidate and row; `epochs` of the supernet a site"
    levels: ClassVar[tuple[str, ...]] = ("layer", "channel")

    epochs: int = 2
    by: By = "loss"
    rescale: bool = False

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise StudyError(f"epochs must be at least 0, but got {self.epochs}")
        require_choice("by", self.by, ("loss", "accuracy"))

    def refusal(self, top_k: TopK) -> str | None:
        if top_k == "all":
            return "it looks for functions that a site can do without, and top_k 'all' keeps every one; use magnitude"
        return None

    def estimate_cost(self, sites: Sequence[tuple[int, int]]) -> CostEstimate:
        tried = sum(rows * candidates for rows, candidates in sites)
        return CostEstimate(supernet_epochs=self.epochs * (len(sites) - 1), validations=tried)

    def derive(self, context: DerivationContext, top_k: TopK) -> Derived:
        require_level("perturbation", self, context.supernet)
        counts = {name: kept_count(name, m, top_k) for name, m in context.supernet.mixtures().items()}
        probe = Probe.of(context.supernet)
        tuned = begin_fit(probe.network, context.optimiser, seed=derive_seed(context.seed, "tune"))
        decided: dict[str, Tensor] = {}
        sites = list(probe.slots)
        for index in permutation(len(sites), context.seed, "sites").tolist():
            name = sites[index]
            decided[name] = self._decide(probe, name, counts[name], context)
            if len(decided) < len(sites):
                for _ in fit(
                    tuned,
                    context.train,
                    epochs=tuned.epoch + self.epochs,
                    batch_size=context.batch_size,
                    loss=context.loss,
                    phase=f"derive, tuning after site {name!r},",
                ):
                    pass
        normaliser = next(iter(probe.slots.values())).normaliser.name
        genotype = genotype_of(probe.banks(), decided, normaliser=normaliser, top_k=top_k)
        return Derived(genotype, {"networks": 0, "epochs": tuned.epoch})

    def _decide(self, probe: Probe, name: str, k: int, context: DerivationContext) -> Tensor:
        """The weights (*layout.shape, K) that site `name` keeps; its slot holds them from now on."""
        slot = probe.slots[name]
        before = slot.weights.detach().double().cpu().clone()
        decided = torch.zeros_like(before)
        for row in itertools.product(*map(range, before.shape[:-1])):
            # what weighs nothing (the search dropped it) can be removed without a trace, and is no candidate
            chosen = before[row] != 0
            if k < int(chosen.sum()):
                asked: list[int] = chosen.nonzero().flatten().tolist()
                harm = {one: self._harm(probe, slot, row, before[row], one, context) for one in asked}
                # at equal harm the heavier one stays, then the first
                order = sorted(asked, key=lambda one: (*harm[one], before[row][one].abs().item(), -one))
                chosen[order[:-k]] = False
            decided[row] = keep(before[row], chosen, slot.normaliser, f"site {name!r}")
            slot.put(decided[row], row)
        return decided

    def _harm(
        self, probe: Probe, slot: Slot, row: tuple[int, ...], weights: Tensor, one: int, context: DerivationContext
    ) -> tuple[float, ...]:
        """How bad validation is without candidate `one` of this row; the larger the worse."""
        masked = weights.clone()
        masked[one] = 0
        left = masked.abs().sum()
        if self.rescale and left > 0:
            masked *= weights.abs().sum() / left
        with slot.holding(masked, row):
            try:
                found = evaluate(probe.network, context.val, loss=context.loss)
            except Divergence:
                return (math.inf,) if self.by == "loss" else (0.0, math.inf)
        return (found.loss,) if self.by == "loss" else (-found.accuracy, found.loss)
