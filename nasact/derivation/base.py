"""What every derivation is context and what it returns. Knows searches and training; no study and no test data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from nasact.errors import StudyError
from nasact.supernet import Genotype, Supernet
from nasact.supernet.derivation import TopK
from nasact.training.batches import Labelled
from nasact.training.loop import FitState, SearchRun
from nasact.training.metrics import Loss
from nasact.training.optimisers import OptimiserOptions


@dataclass(frozen=True, kw_only=True)
class DerivationContext:
    """A finished search and all that a derivation may use. Nothing in it is changed by any of them."""

    run: SearchRun
    train: Labelled
    val: Labelled
    begin: Callable[[Genotype, int], FitState]
    """A network with the functions of a genotype before its first epoch, a function of the genotype and a seed."""
    optimiser: OptimiserOptions
    """What trains the supernet's weights where a derivation goes on training them."""
    loss: Loss
    batch_size: int
    """Of the supernet."""
    fit_batch_size: int
    """Of the networks that `begin` makes."""
    seed: int

    @property
    def supernet(self) -> Supernet:
        return self.run.supernet


@dataclass(frozen=True)
class Derived:
    """A genotype, and what it took: among other numbers `networks` begun from scratch, `epochs` over training data."""

    genotype: Genotype
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """What a derivation may take, at most: counted before a search, for an estimate."""

    supernet_epochs: int = 0
    """Of training the supernet, over training data."""
    network_epochs: int = 0
    """Of training networks of one genotype each, over training data."""
    mixture_epochs: int = 0
    """Of training mixture weights, over validation data."""
    validations: int = 0
    """Of the supernet."""


class Derivation(Protocol):
    """How a supernet becomes a genotype: a frozen record of options.

    One that is asked for nothing by some `top_k` tells it by `refusal(top_k)`: why, or None.
    """

    source: ClassVar[str]
    summary: ClassVar[str]
    cost: ClassVar[str]
    levels: ClassVar[tuple[str, ...]]
    """Those that it can serve; empty: all."""

    def estimate_cost(self, sites: Sequence[tuple[int, int]]) -> CostEstimate:
        """At most, with sites of so many (rows, candidates)."""
        ...

    def derive(self, context: DerivationContext, top_k: TopK) -> Derived:
        """A function of its arguments; leaves supernet, optimisers and generators of `context.run` as they were.

        Raises GenotypeError for a `top_k` that a site does not have, MixtureError where the kept weights cannot be
        normalised, Divergence where what it trains leaves the finite numbers.
        """
        ...


def refusal(method: Derivation, top_k: TopK) -> str | None:
    """Why a study may not ask `method` for that `top_k`; None where it may."""
    told: str | None = method.refusal(top_k) if hasattr(method, "refusal") else None
    return told


def require_level(name: str, method: Derivation, supernet: Supernet) -> None:
    """StudyError where a site's level is not one that the method serves."""
    for site, mixture in supernet.mixtures().items():
        level = mixture.bank.layout.level
        if method.levels and level not in method.levels:
            expected = " or ".join(method.levels)
            raise StudyError(f"site {site!r}: derivation {name!r} needs level {expected}, but the level is {level!r}")
