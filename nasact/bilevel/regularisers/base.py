"""What a regulariser is told, and what it promises. Knows tensors and normalisers; no supernet, no optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, TypeAlias

from torch import Tensor

from nasact.mixture import Normaliser


@dataclass(frozen=True, kw_only=True)
class RegulariserContext:
    """A supernet as regularisers see it, everything by name.

    `kernels`: weights of convolutions and dense layers, (out, ...). `alphas` and `p` by site: (..., K), p the mixture
    weights as evaluation sees them, at the temperature of the moment. `functions`: the K candidates of each site, in
    their order, those that a search has dropped left out; `originals`: the model's own function there. `progress`: the
    part of the search that lies behind, warm-up not counted, from 0 to below 1.
    """

    kernels: Mapping[str, Tensor] = field(default_factory=dict)
    alphas: Mapping[str, Tensor] = field(default_factory=dict)
    p: Mapping[str, Tensor] = field(default_factory=dict)
    functions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    originals: Mapping[str, str] = field(default_factory=dict)
    progress: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where a regulariser is to serve; None: not known yet."""

    normaliser: Normaliser
    level: str
    functions: tuple[str, ...] | None = None
    original: str | None = None
    weight_steps: bool = True
    """Whether the strategy takes steps of the weights alone."""
    alpha_moves: bool = True
    """Whether it ever moves alpha."""


class Penalty(Protocol):
    """A term added to a loss: a frozen record of hyperparameters and a pure function.

    One that acts in a part of the search only tells its `phases` (see `phases.SearchPhase`).
    """

    name: ClassVar[str]
    source: ClassVar[str]
    formula: ClassVar[str]
    on: ClassVar[Literal["validation", "training"]]
    """The loss that it joins: alpha's, or the weights'."""

    def refusal(self, setting: Setting) -> str | None:
        """Why it would mean nothing there; None where it serves."""
        ...

    def __call__(self, context: RegulariserContext) -> Tensor:
        """A number of dimension 0, differentiable in what it is about."""
        ...


class Perturbation(Protocol):
    """What changes the mixture weights for the length of one weight step."""

    name: ClassVar[str]
    source: ClassVar[str]
    formula: ClassVar[str]
    on: ClassVar[Literal["validation", "training"]]

    def refusal(self, setting: Setting) -> str | None: ...

    def perturb(self, p: Mapping[str, Tensor], gradient: Gradient, progress: float) -> dict[str, Tensor]:
        """The mixture weights by site that the weight step is to see; `gradient` tells the training loss's slope."""
        ...


class Gradient(Protocol):
    def __call__(self, p: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """d training loss / d p at these mixture weights, the network weights held."""
        ...


Regulariser: TypeAlias = Penalty | Perturbation
