"""`validated`: where the weights leave it open, short training from scratch decides. The original is always asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nasact.derivation.alternatives import near_genotypes, original_genotype, same_functions
from nasact.derivation.halving import successive_halving
from nasact.derivation.record import Derived, Given
from nasact.errors import StudyError
from nasact.supernet import Genotype
from nasact.supernet.derivation import TopK
from nasact.training.loop import FitState
from nasact.training.seeds import derive_seed


@dataclass(frozen=True, kw_only=True)
class Validated:
    """Near ties of the search, compared by what their networks reach.

    A site's alternatives are the functions whose weight is at least `1 - margin` of its best one's (of the last one
    that is kept, where more than one is). Of the whole genotypes made of them the `networks` likeliest, by the product
    of those weights, and the network with the model's own activations are trained from scratch on the training data,
    by successive halving on validation accuracy: two and the original are left after `epochs`. The best of these is
    the genotype: on validation data, after that training, it is never worse than the original. All networks begin
    with the same seeds, `seeds` of them each, whose accuracies are averaged.
    """

    source: ClassVar[str] = "successive halving of arXiv:1502.07943 over near ties"
    summary: ClassVar[str] = "trains genotypes of near ties and the original network briefly, keeps the best"
    cost: ClassVar[str] = "up to `networks` + 1 networks, about `epochs` (2 + log2 `networks`) epochs in all"
    levels: ClassVar[tuple[str, ...]] = ()

    networks: int = 8
    epochs: int = 8
    margin: float = 0.5
    seeds: int = 1

    def __post_init__(self) -> None:
        for option in ("networks", "epochs", "seeds"):
            if getattr(self, option) < 1:
                raise StudyError(f"{option} must be at least 1, but got {getattr(self, option)}")
        if not 0 <= self.margin <= 1:
            raise StudyError(f"margin must be between 0 and 1, but got {self.margin}")

    def derive(self, given: Given, top_k: TopK) -> Derived:
        original = original_genotype(given.supernet)
        near = near_genotypes(given.supernet, top_k, self.margin, self.networks)
        genotypes = [original, *(one for one in near if not same_functions(one, original))]
        best, champion, epochs = successive_halving(
            genotypes,
            lambda genotype: self._begin(given, genotype),
            given.train,
            given.val,
            epochs=self.epochs,
            batch_size=given.fit_batch_size,
            loss=given.loss,
        )
        metrics = {
            "networks": len(genotypes) * self.seeds,
            "epochs": epochs,
            "val_accuracy": best.score[0],
            "val_accuracy_original": max(0.0, champion.score[0]),
        }
        return Derived(best.genotype, metrics)

    def _begin(self, given: Given, genotype: Genotype) -> list[FitState]:
        # the same seeds for all: what differs is the genotype alone
        return [given.begin(genotype, derive_seed(given.seed, "networks", index)) for index in range(self.seeds)]
