"""`validated`: where the weights leave it open, short training decides. The original and single functions are asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from nasact.derivation.base import CostEstimate, DerivationContext, Derived
from nasact.derivation.near_genotypes import near_genotypes, original_genotype, same_functions, uniform_genotypes
from nasact.derivation.successive_halving import rungs, successive_halving
from nasact.errors import StudyError
from nasact.supernet import Genotype
from nasact.supernet.derivation import TopK
from nasact.training.loop import FitState
from nasact.training.seeds import derive_seed


@dataclass(frozen=True, kw_only=True)
class Validated:
    """The likeliest genotypes of the search and what a user would take without one, compared by what they reach.

    A site's alternatives are the functions whose weight is at least `1 - margin` of its best one's (of the last one
    that is kept, where more than one is). Of the whole genotypes made of them the `networks` likeliest, by the product
    of those weights; with `uniform` each candidate at all sites, for a search that loses to the best single function
    has lost; and the network with the model's own activations: all are trained from scratch on the training data, by
    successive halving on validation accuracy. Two and the original are left after `epochs`, and the best of these is
    the genotype: on validation data, after that training, it is never worse than the original. All networks begin
    with the same seeds, `seeds` of them each, whose accuracies are averaged.
    """

    source: ClassVar[str] = "successive halving of arXiv:1502.07943 over near ties"
    summary: ClassVar[str] = "trains the likeliest genotypes, single functions and the original briefly, keeps the best"
    cost: ClassVar[str] = "up to `networks` + candidates + 1 networks, most of them for a quarter of `epochs`"
    levels: ClassVar[tuple[str, ...]] = ()

    networks: int = 8
    epochs: int = 8
    margin: float = 0.99
    seeds: int = 1
    uniform: bool = True

    def __post_init__(self) -> None:
        for option in ("networks", "epochs", "seeds"):
            if getattr(self, option) < 1:
                raise StudyError(f"{option} must be at least 1, but got {getattr(self, option)}")
        if not 0 <= self.margin <= 1:
            raise StudyError(f"margin must be between 0 and 1, but got {self.margin}")

    def estimate_cost(self, sites: Sequence[tuple[int, int]]) -> CostEstimate:
        most = self.networks + (max(candidates for _, candidates in sites) if self.uniform else 0)
        trained, before = 0, 0
        for size, budget in rungs(most, self.epochs):
            trained += (size + 1) * (budget - before)  # and the original
            before = budget
        return CostEstimate(network_epochs=self.seeds * trained)

    def derive(self, context: DerivationContext, top_k: TopK) -> Derived:
        original = original_genotype(context.supernet)
        near = near_genotypes(context.supernet, top_k, self.margin, self.networks)
        genotypes = [original]
        for one in (*near, *(uniform_genotypes(context.supernet) if self.uniform else ())):
            if not any(same_functions(one, other) for other in genotypes):
                genotypes.append(one)
        best, champion, epochs = successive_halving(
            genotypes,
            lambda genotype: self._begin(context, genotype),
            context.train,
            context.val,
            epochs=self.epochs,
            batch_size=context.fit_batch_size,
            loss=context.loss,
        )
        metrics = {
            "networks": len(genotypes) * self.seeds,
            "epochs": epochs,
            "val_accuracy": best.score[0],
            "val_accuracy_original": max(0.0, champion.score[0]),
        }
        return Derived(best.genotype, metrics)

    def _begin(self, context: DerivationContext, genotype: Genotype) -> list[FitState]:
        # the same seeds for all: what differs is the genotype alone
        return [context.begin(genotype, derive_seed(context.seed, "networks", index)) for index in range(self.seeds)]
