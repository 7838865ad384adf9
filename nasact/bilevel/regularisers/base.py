"""What a regulariser is, what it is computed from, and where it can be applied.

Knows tensors and normalisers; must not know supernets or optimisers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, TypeAlias

from torch import Tensor

from nasact.mixture import Normaliser
from nasact.options import RecordRegistry

LossName: TypeAlias = Literal["validation", "training"]


@dataclass(frozen=True, kw_only=True)
class RegulariserContext:
    """What a penalty is computed from, everything by name.

    `kernels`: weights of convolutions and dense layers, (out, ...). `alphas` and `p`, by site: (..., K); p are the
    mixture weights of evaluation at the current temperature. `functions`: the K remaining candidates of each site, in
    their order. `originals`: the model's own function at each site. `progress`: the completed part of the search
    without its warm-up, 0 <= progress < 1.
    """

    kernels: Mapping[str, Tensor] = field(default_factory=dict)
    alphas: Mapping[str, Tensor] = field(default_factory=dict)
    p: Mapping[str, Tensor] = field(default_factory=dict)
    functions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    originals: Mapping[str, str] = field(default_factory=dict)
    progress: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SearchSetting:
    """The search, or one site of it, that a regulariser is to be applied to. None: not known yet."""

    normaliser: Normaliser
    level: str
    functions: tuple[str, ...] | None = None
    original: str | None = None
    weight_steps: bool = True
    """Whether the strategy takes steps of only the weights."""
    alpha_moves: bool = True
    """Whether the strategy ever updates alpha."""


class Penalty(Protocol):
    """A term added to a loss: a frozen record of hyperparameters and a pure function.

    Optional attribute `phases`: the parts of the search in which the penalty acts (`phases.SearchPhase`). Default: no
    phases; the penalty acts in every step.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    formula: ClassVar[str]
    target_loss: ClassVar[LossName]
    """The loss that the penalty is added to: "validation" (alpha minimises it) or "training" (the weights do)."""

    def refusal(self, setting: SearchSetting) -> str | None:
        """Return why the penalty would have no meaning in this setting; None if it can be applied."""
        ...

    def __call__(self, context: RegulariserContext) -> Tensor:
        """Return the penalty, a 0-d tensor, differentiable in the tensors of `context`."""
        ...


class Perturbation(Protocol):
    """A change of the mixture weights for the duration of one weight step."""

    name: ClassVar[str]
    source: ClassVar[str]
    formula: ClassVar[str]
    target_loss: ClassVar[LossName]

    def refusal(self, setting: SearchSetting) -> str | None: ...

    def perturb(self, p: Mapping[str, Tensor], gradient: MixtureGradient, progress: float) -> dict[str, Tensor]:
        """Return the mixture weights of each site for the weight step, like `p`."""
        ...


class MixtureGradient(Protocol):
    def __call__(self, p: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return d training loss / d p at these mixture weights; the network weights are constant."""
        ...


Regulariser: TypeAlias = Penalty | Perturbation

REGULARISERS: RecordRegistry[Regulariser] = RecordRegistry("regulariser", "nasact list regularisers")
