"""`perturbation`: keeps the functions whose removal costs most on validation data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from nasact.derivation.base import DERIVATIONS, CostEstimate, DerivationContext, Derived, require_level
from nasact.errors import Divergence
from nasact.options import require_at_least, require_choice
from nasact.supernet.fixed_weights import FixedWeightMixture, FixedWeightSupernet
from nasact.supernet.top_k import TopK, build_genotype, keep_chosen, resolve_top_k
from nasact.training.batches import permutation
from nasact.training.loop import begin_fit, fit
from nasact.training.metrics import evaluate
from nasact.training.seeds import derive_seed

Criterion = Literal["loss", "accuracy"]


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """DARTS-PT (Wang et al. 2021, arXiv:2108.04392, Algorithm 1), site by site in random order.

    Each candidate in turn is masked (p_k = 0, the other weights unchanged) and the supernet is evaluated on validation
    data. The site keeps the candidates whose removal costs most, and the supernet is tuned before the next site. At
    level channel the rows of a site are decided one after the other; the supernet is tuned after the last row.

    `epochs`: epochs of tuning after each site except the last: network weights and betas on training data, with a new
    optimiser of the search's kind. The mixture weights of undecided sites are not tuned (the paper trains them).
    `by`: the cost of a removal: the validation loss, or the accuracy as in the paper's code (ties: by the loss).
    `rescale`: the other weights take over the share of the masked one, so that the site keeps its scale. Not in the
    paper. Without it the removal of a heavy function costs much by its size alone.
    """

    source: ClassVar[str] = "DARTS-PT, arXiv:2108.04392, Algorithm 1"
    summary: ClassVar[str] = "keeps the functions whose removal hurts validation most, tuning after each site"
    cost: ClassVar[str] = "one validation per candidate and row; `epochs` of the supernet per site"
    levels: ClassVar[tuple[str, ...]] = ("layer", "channel")

    epochs: int = 2
    by: Criterion = "loss"
    rescale: bool = False

    def __post_init__(self) -> None:
        require_at_least("epochs", self.epochs, 0)
        require_choice("by", self.by, ("loss", "accuracy"))

    def refusal(self, top_k: TopK) -> str | None:
        if top_k == "all":
            return "it searches for functions that a site can do without, and top_k 'all' keeps all; use magnitude"
        return None

    def estimate_cost(self, sites: Sequence[tuple[int, int]]) -> CostEstimate:
        removals = sum(rows * candidates for rows, candidates in sites)
        return CostEstimate(supernet_epochs=self.epochs * (len(sites) - 1), validations=removals)

    def derive(self, context: DerivationContext, top_k: TopK) -> Derived:
        require_level("perturbation", self, context.supernet)
        counts = {name: resolve_top_k(name, m, top_k) for name, m in context.supernet.mixtures().items()}
        fixed = FixedWeightSupernet.copy_of(context.supernet)
        tuned = begin_fit(fixed.network, context.optimiser, seed=derive_seed(context.seed, "tune"))
        decided: dict[str, Tensor] = {}
        sites = list(fixed.mixtures)
        for index in permutation(len(sites), context.seed, "sites").tolist():
            name = sites[index]
            decided[name] = self._decide(fixed, name, counts[name], context)
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
        normaliser = next(iter(fixed.mixtures.values())).normaliser.name
        genotype = build_genotype(fixed.banks(), decided, normaliser=normaliser, top_k=top_k)
        return Derived(genotype, {"networks": 0, "epochs": tuned.epoch})

    def _decide(self, fixed: FixedWeightSupernet, name: str, k: int, context: DerivationContext) -> Tensor:
        """The weights (*layout.shape, K) that site `name` keeps; they are also put into its mixture."""
        mixture = fixed.mixtures[name]
        before = mixture.weights.detach().double().cpu().clone()
        decided = torch.zeros_like(before)
        for row in itertools.product(*map(range, before.shape[:-1])):
            # a function of weight 0 was dropped by the search: its removal costs nothing, and it is no candidate
            chosen = before[row] != 0
            if k < int(chosen.sum()):
                candidates: list[int] = chosen.nonzero().flatten().tolist()
                cost = {
                    index: self._removal_cost(fixed, mixture, row, before[row], index, context) for index in candidates
                }
                # at equal cost the heavier candidate is kept, then the first
                ranked = sorted(candidates, key=lambda i: (*cost[i], before[row][i].abs().item(), -i))
                chosen[ranked[:-k]] = False
            decided[row] = keep_chosen(before[row], chosen, mixture.normaliser, f"site {name!r}")
            mixture.set_weights(decided[row], row)
        return decided

    def _removal_cost(
        self,
        fixed: FixedWeightSupernet,
        mixture: FixedWeightMixture,
        row: tuple[int, ...],
        weights: Tensor,
        index: int,
        context: DerivationContext,
    ) -> tuple[float, ...]:
        """How bad validation is without candidate `index` of this row; larger is worse."""
        masked = weights.clone()
        masked[index] = 0
        remaining = masked.abs().sum()
        if self.rescale and remaining > 0:
            masked *= weights.abs().sum() / remaining
        with mixture.temporary_weights(masked, row):
            try:
                validation = evaluate(fixed.network, context.val, loss=context.loss)
            except Divergence:
                return (math.inf,) if self.by == "loss" else (0.0, math.inf)
        return (validation.loss,) if self.by == "loss" else (-validation.accuracy, validation.loss)


DERIVATIONS.register("perturbation", Perturbation)
