"""What a strategy is, the registry of strategies, and the defaults of a strategy's optional attributes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import torch

from nasact.bilevel.hypergradients.base import Hypergradient
from nasact.bilevel.problem import Batch, Loss
from nasact.bilevel.strategies.state import SearchState
from nasact.errors import StudyError
from nasact.options import RecordRegistry

if TYPE_CHECKING:
    from nasact.supernet import Supernet


@dataclass(frozen=True)
class StepReport:
    """The losses of one step, without penalties."""

    train_loss: float
    """The training loss of the weight step."""
    val_loss: float | None
    """The validation loss of the hypergradient; None if the step does not compute it."""


class Strategy(Protocol):
    """How `w` and alpha are updated: a frozen record of hyperparameters; the state is a separate `SearchState`.

    Optional attributes, each with a function below (`phases`: in `phases.py`) that returns it or its default:

    - `alpha_moves_from`: progress (0..1) at which alpha starts to be updated; None: never. Default 0.
    - `phases`: the phases into which the strategy divides a search (`phases.SearchPhase`). A study whose search is too
      short for them is refused. Default: none.
    - `remaining_candidates(k)`: number of the k candidates of a site that remain at the end. Default k.
    - `temperature`: (start, end, schedule) for a study that sets no temperature; None: constant 1. Default None.
    - `weight_steps`: whether the strategy takes steps of only the weights. Default True.
    - `normalisers_reason`: why the strategy supports only its `normalisers`; part of the refusal.
    """

    source: ClassVar[str]
    guarantee: ClassVar[str]
    cost: ClassVar[str]
    normalisers: ClassVar[tuple[str, ...]]
    """The supported normalisers, first the default of a study that names none; empty: all, default softmax."""

    @property
    def lr(self) -> float: ...

    def init(self, supernet: Supernet, weight_optimiser: torch.optim.Optimizer, loss: Loss) -> SearchState:
        """Return the state before the first step."""
        ...

    def alpha_gradient(self, state: SearchState, train: Batch, val: Batch) -> Hypergradient:
        """Return the gradient that `step` would use for alpha; changes only the states of the random generators."""
        ...

    def step(self, state: SearchState, train: Batch, val: Batch) -> StepReport:
        """Update alpha and `w` once each, in place; a strategy with phases may update only one of them."""
        ...


STRATEGIES: RecordRegistry[Strategy] = RecordRegistry("strategy", "nasact list strategies")


def registered_name(strategy: Strategy) -> str:
    """Return the name under which the class of `strategy` is registered; else the name of the class."""
    return next((name for name, cls in STRATEGIES.items() if type(strategy) is cls), type(strategy).__name__)


def alpha_moves_from(strategy: Strategy) -> float | None:
    """Return the progress at which alpha starts to be updated; None: never."""
    moves_from: float | None = getattr(strategy, "alpha_moves_from", 0.0)
    return moves_from


def remaining_candidates(strategy: Strategy, k: int) -> int:
    """Return the number of the k candidates of a site that remain at the end of a search."""
    remaining: int = strategy.remaining_candidates(k) if hasattr(strategy, "remaining_candidates") else k
    return remaining


def default_temperature(strategy: type[Strategy] | Strategy) -> tuple[float, float, str] | None:
    """Return (start, end, schedule) for a study that sets no temperature; None: constant 1."""
    temperature: tuple[float, float, str] | None = getattr(strategy, "temperature", None)
    return temperature


def takes_weight_steps(strategy: Strategy) -> bool:
    """Return whether the strategy takes steps of only the weights."""
    weight_steps: bool = getattr(strategy, "weight_steps", True)
    return weight_steps


def unsupported_normaliser(name: str, strategy: type[Strategy] | Strategy, normaliser: str) -> str:
    """Return the message that the strategy called `name` does not support this normaliser, with the reason."""
    reason: str = getattr(strategy, "normalisers_reason", "it is made for other normalisers")
    supported = " or ".join(strategy.normalisers)
    return f"strategy {name!r} does not support normaliser {normaliser!r}: {reason}; use {supported}"


def require_normaliser(strategy: Strategy, supernet: Supernet) -> None:
    """Raise StudyError, with the first such site, if the strategy does not support the normaliser of a site."""
    if not strategy.normalisers:
        return
    for site, mixture in supernet.mixtures().items():
        if mixture.normaliser_name not in strategy.normalisers:
            message = unsupported_normaliser(registered_name(strategy), strategy, mixture.normaliser_name)
            raise StudyError(f"site {site!r}: {message}")
