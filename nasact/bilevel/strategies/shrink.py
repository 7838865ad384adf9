"""`shrink`: darts on a bank from which the lightest candidates are dropped, stage by stage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from nasact.bilevel.differentiable_optimiser import inner_step
from nasact.bilevel.hypergradients import Hypergradient, HypergradientFunction, first_order, second_order
from nasact.bilevel.phases import SearchPhase
from nasact.bilevel.problem import Batch, Loss, trainable_weights
from nasact.bilevel.strategies.alpha_schedule import rest
from nasact.bilevel.strategies.alternating import alpha_gradient, alternate
from nasact.bilevel.strategies.state import SearchState, StepReport, start
from nasact.errors import StudyError
from nasact.options import require_choice, require_positive

if TYPE_CHECKING:
    from nasact.mixture import Mixture
    from nasact.supernet import Supernet


@dataclass(frozen=True, kw_only=True)
class Shrink:
    """Progressive shrinking of the bank (the search space approximation of P-DARTS, arXiv:1904.12760; also in DrNAS).

    The search has stages of equal length. Each but the first begins by dropping, at each site, the candidates of the
    least weight (mean of |p| over rows; the later in the bank goes first at a tie), then trains `w` alone for the part
    `weights_only` of its length (P-DARTS: 10 of 25 epochs), then alternates as `darts` of this `order`. A site without
    a choice rests.

    How many are left: with `stages` and `last`, from all K down to `last` by a constant factor, rounded up
    (8, 4, 2, 1); or `counts`, the numbers themselves after each drop ("5, 3, 1" is P-DARTS': four stages). A site that
    has no more than that loses none. Unlike P-DARTS, weights and alpha are kept from stage to stage, and no layers are
    added.
    """

    source: ClassVar[str] = "P-DARTS, Chen et al. 2019, arXiv:1904.12760; DrNAS, arXiv:2006.10355"
    guarantee: ClassVar[str] = "as darts of the same order, of those alive; ends with the decision made where last is 1"
    cost: ClassVar[str] = "at most that of darts of the same order; dropped candidates are still computed"
    normalisers: ClassVar[tuple[str, ...]] = ()

    order: Literal[1, 2] = 1
    lr: float = 3e-3
    stages: int = 4
    last: int = 1
    counts: str = ""
    weights_only: float = 0.4

    def __post_init__(self) -> None:
        require_choice("order", self.order, (1, 2))
        require_positive("lr", self.lr)
        for option, value, least in (("stages", self.stages, 2), ("last", self.last, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise StudyError(f"{option} must be a whole number of at least {least}, but got {value!r}")
        if not 0 <= self.weights_only < 1:
            raise StudyError(f"weights_only must be at least 0 and below 1, but got {self.weights_only}")
        if self.counts and (self.stages, self.last) != (4, 1):
            raise StudyError("counts says how many are left at each stage: give it, or stages and last, but not both")
        self._told()

    @property
    def alpha_moves_from(self) -> float:
        return self.weights_only / self._stages

    @property
    def phases(self) -> tuple[SearchPhase, ...]:
        """The stages; alpha must move in each of them, save the last where that leaves no choice."""
        n, option = self._stages, "counts" if self.counts else "stages"
        decided = (self._told()[-1] if self.counts else self.last) == 1
        waits = [0.0 if decided and stage == n - 1 else self.weights_only for stage in range(n)]
        return tuple(
            SearchPhase(
                what=f"each of the {n} stages",
                option=option,
                begin=stage / n,
                end=(stage + 1) / n,
                acts_from=(stage + wait) / n,
            )
            for stage, wait in enumerate(waits)
        )

    def remaining_candidates(self, k: int) -> int:
        return self.left(k, self._stages - 1)

    @property
    def _stages(self) -> int:
        return len(self._told()) + 1 if self.counts else self.stages

    def left(self, k: int, stage: int) -> int:
        """How many of `k` candidates a site has in stage 0, 1, ..."""
        if stage == 0:
            return k
        if self.counts:
            return min(k, self._told()[stage - 1])
        last = min(k, self.last)
        # 8 * (1 / 8) ** (1 / 3) is 4 and a rounding error
        return math.ceil(k * math.pow(last / k, stage / (self.stages - 1)) - 1e-9)

    def init(self, supernet: Supernet, weight_optimiser: torch.optim.Optimizer, loss: Loss) -> SearchState:
        if self.order == 2:
            inner_step(weight_optimiser, trainable_weights(supernet))  # refuse an unknown optimiser now, not at step 1
        return start(supernet, weight_optimiser, loss, alpha_lr=self.lr)

    def alpha_gradient(self, state: SearchState, train: Batch, val: Batch) -> Hypergradient:
        """Of those alive; in the part of a stage that trains weights only, nothing follows it."""
        return alpha_gradient(state, train, val, self._hypergradient, looks_ahead=self.order == 2)

    def step(self, state: SearchState, train: Batch, val: Batch) -> StepReport:
        stage = sum(state.progress >= begun / self._stages for begun in range(1, self._stages))
        mixtures = state.supernet.mixtures().values()
        decided = stage > 0
        if stage > 0:
            for mixture in mixtures:
                mixture.drop(self._lightest(mixture, stage))
                decided = decided and int(mixture.alive.sum()) == 1
        if decided or state.progress < (stage + self.weights_only) / self._stages:
            return rest(state, train)
        return alternate(state, train, self.alpha_gradient(state, train, val))

    def _lightest(self, mixture: Mixture, stage: int) -> list[str]:
        """Who has to go for this stage to begin; nobody once they are gone."""
        alive = mixture.alive
        surplus = int(alive.sum()) - self.left(len(mixture.names), stage)
        if surplus <= 0:
            return []
        weight = mixture.weights().double().cpu().abs().reshape(-1, len(mixture.names)).mean(0)
        heaviest_first = weight.masked_fill(~alive, -1.0).argsort(descending=True, stable=True).tolist()
        ranked = [k for k in heaviest_first if alive[k]]
        return [mixture.names[k] for k in ranked[-surplus:]]

    def _told(self) -> tuple[int, ...]:
        try:
            told = tuple(int(count) for count in self.counts.split(",")) if self.counts else ()
        except (ValueError, AttributeError):
            told = (0,)
        if any(count < 1 for count in told) or any(after >= before for before, after in pairwise(told)):
            raise StudyError(
                f"counts must be falling whole numbers of at least 1, as '5, 3, 1', but got {self.counts!r}"
            )
        return told

    @property
    def _hypergradient(self) -> HypergradientFunction:
        return first_order if self.order == 1 else second_order
