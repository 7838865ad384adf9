"""`validated`: short training compares the likeliest genotypes, the single functions and the original network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from nasact.derivation.alternatives import likeliest_genotypes, original_genotype, same_functions, uniform_genotypes
from nasact.derivation.base import DERIVATIONS, CostEstimate, DerivationContext, Derived
from nasact.derivation.successive_halving import rungs, successive_halving
from nasact.errors import StudyError
from nasact.options import require_at_least
from nasact.supernet import Genotype
from nasact.supernet.top_k import TopK
from nasact.training.loop import FitState
from nasact.training.seeds import derive_seed


@dataclass(frozen=True, kw_only=True)
class Validated:
    """Compare the likeliest genotypes of a search, and those available without a search, by short training.

    Compared are: the `networks` likeliest genotypes; with `uniform` each candidate at all sites, because the result of
    a search should not be worse than the best single function; and the network with the model's own activations.

    A site's alternatives are the functions with a weight of at least `1 - margin` times that of its best function (of
    its last kept function, if `top_k` is above 1). The likeliest genotypes combine them by the product of weights.

    All networks are trained from scratch on the training data, by successive halving on validation accuracy. Two
    networks and the original train for all `epochs`; the best of the three is the genotype. After this training it is
    never worse than the original on validation data. Every genotype is trained with the same `seeds` seeds, and its
    accuracies are averaged.
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
            require_at_least(option, getattr(self, option))
        if not 0 <= self.margin <= 1:
            raise StudyError(f"margin must be between 0 and 1, but got {self.margin}")

    def estimate_cost(self, sites: Sequence[tuple[int, int]]) -> CostEstimate:
        genotypes = self.networks + (max(candidates for _, candidates in sites) if self.uniform else 0)
        epochs, epochs_before = 0, 0
        for size, budget in rungs(genotypes, self.epochs):
            epochs += (size + 1) * (budget - epochs_before)  # + 1: the original
            epochs_before = budget
        return CostEstimate(network_epochs=self.seeds * epochs)

    def derive(self, context: DerivationContext, top_k: TopK) -> Derived:
        original = original_genotype(context.supernet)
        likeliest = likeliest_genotypes(context.supernet, top_k, self.margin, self.networks)
        genotypes = [original]
        for genotype in (*likeliest, *(uniform_genotypes(context.supernet) if self.uniform else ())):
            if not any(same_functions(genotype, known) for known in genotypes):
                genotypes.append(genotype)
        best, reference, epochs = successive_halving(
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
            "val_accuracy_original": max(0.0, reference.score[0]),
        }
        return Derived(best.genotype, metrics)

    def _begin(self, context: DerivationContext, genotype: Genotype) -> list[FitState]:
        # the same seeds for all genotypes, so that only the genotype differs
        return [context.begin(genotype, derive_seed(context.seed, "networks", index)) for index in range(self.seeds)]


DERIVATIONS.register("validated", Validated)
