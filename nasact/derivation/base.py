"""The protocol of a derivation, its context and result, and the registry. Knows searches and training, but no study."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

from nasact.errors import StudyError
from nasact.options import RecordRegistry
from nasact.supernet import Genotype, Supernet
from nasact.supernet.top_k import TopK
from nasact.training.batches import LabelledExamples
from nasact.training.loop import FitState, SearchRun
from nasact.training.metrics import Loss
from nasact.training.optimisers import OptimiserOptions
from nasact.training.seeds import RandomStream, derive_seed


@dataclass(frozen=True, kw_only=True)
class DerivationContext:
    """A finished search and what a derivation may use of it. Derivations must not change anything in it."""

    run: SearchRun
    train: LabelledExamples
    val: LabelledExamples
    begin: Callable[[Genotype, int], FitState]
    """A network with the functions of a genotype before its first epoch: a pure function of the genotype and a seed."""
    optimiser: OptimiserOptions
    """The optimiser of the supernet's weights, for a derivation that continues to train them."""
    loss: Loss
    batch_size: int
    """The batch size of the supernet."""
    fit_batch_size: int
    """The batch size of the networks that `begin` builds."""
    seed: int

    @property
    def supernet(self) -> Supernet:
        return self.run.supernet


@dataclass(frozen=True)
class Derived:
    """A genotype and the metrics of its derivation.

    The metrics include `networks` (networks trained from scratch) and `epochs` (epochs over the training data).
    """

    genotype: Genotype
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """The largest cost of a derivation, known before the search."""

    supernet_epochs: int = 0
    """Epochs of training the supernet's weights on training data."""
    network_epochs: int = 0
    """Epochs of training networks of one genotype each on training data."""
    mixture_epochs: int = 0
    """Epochs of training mixture weights on validation data."""
    validations: int = 0
    """Evaluations of the supernet on the validation data."""


class Derivation(Protocol):
    """How a supernet becomes a genotype: a frozen record of options.

    Optional attributes:

    - `refusal(top_k)`: why a study cannot use the derivation with this `top_k`, or None. Default: it supports any.
    """

    source: ClassVar[str]
    summary: ClassVar[str]
    cost: ClassVar[str]
    levels: ClassVar[tuple[str, ...]]
    """The levels that the derivation supports; empty: all."""

    def estimate_cost(self, sites: Sequence[tuple[int, int]]) -> CostEstimate:
        """The largest cost, given the numbers of (rows, candidates) of each site."""
        ...

    def derive(self, context: DerivationContext, top_k: TopK) -> Derived:
        """The genotype: a pure function of the arguments. Supernet, optimisers and generators of the search stay as
        they are.

        Raises GenotypeError if a site has fewer candidates than `top_k`, MixtureError if the kept weights cannot be
        normalised, Divergence if a loss is not finite.
        """
        ...


DERIVATIONS: RecordRegistry[Derivation] = RecordRegistry("derivation", "nasact list derivations")


def derive_by(method: Derivation, context: DerivationContext, top_k: TopK = 1) -> Derived:
    """Run `method.derive` in a separate random stream, and add the elapsed `seconds` to the metrics."""
    started = time.perf_counter()
    with RandomStream(derive_seed(context.seed, "derivation")):
        derived = method.derive(context, top_k)
    return replace(derived, metrics={**derived.metrics, "seconds": time.perf_counter() - started})


def refusal(method: Derivation, top_k: TopK) -> str | None:
    """Why a study cannot use `method` with this `top_k`; None if it can."""
    reason: Callable[[TopK], str | None] | None = getattr(method, "refusal", None)
    return None if reason is None else reason(top_k)


def require_level(name: str, method: Derivation, supernet: Supernet) -> None:
    """Raise StudyError if a site has a level that the method does not support."""
    for site, mixture in supernet.mixtures().items():
        level = mixture.bank.layout.level
        if method.levels and level not in method.levels:
            expected = " or ".join(method.levels)
            raise StudyError(f"site {site!r}: derivation {name!r} needs level {expected}, but the level is {level!r}")
