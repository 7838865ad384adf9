"""`shrink`: `darts` on a bank from which each stage drops the candidates with the smallest weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from nasact.bilevel.differentiable_optimiser import inner_step
from nasact.bilevel.hypergradients.base import Hypergradient, HypergradientFunction
from nasact.bilevel.hypergradients.first_order import first_order
from nasact.bilevel.hypergradients.second_order import second_order
from nasact.bilevel.phases import SearchPhase
from nasact.bilevel.problem import Batch, Loss, trainable_weights
from nasact.bilevel.strategies.base import STRATEGIES, StepReport
from nasact.bilevel.strategies.state import SearchState, darts_adam, initial_state
from nasact.bilevel.strategies.steps import alpha_gradient, alternating_step, weights_only_step
from nasact.errors import StudyError
from nasact.options import require_choice, require_positive

if TYPE_CHECKING:
    from nasact.mixture import Mixture
    from nasact.supernet import Supernet


@dataclass(frozen=True, kw_only=True)
class Shrink:
    """Progressive shrinking of the bank (the search space approximation of P-DARTS, arXiv:1904.12760; also in DrNAS).

    The search has stages of equal length. At the start of each stage but the first, each site drops the candidates with
    the smallest weights (mean of |p| over rows; of equal weights, the later candidate in the bank is dropped first).
    Then only `w` is trained for the part `weights_only` of the stage (P-DARTS: 10 of 25 epochs), then both as in
    `darts` of this `order`. If every site has one candidate, only `w` is trained.

    Number of remaining candidates: with `stages` and `last`, from all K down to `last` by a constant factor, rounded up
    (8, 4, 2, 1); or `counts`, the numbers after each drop ("5, 3, 1" are those of P-DARTS: four stages). A site that
    has no more candidates than that drops none. Unlike in P-DARTS, weights and alpha are kept between stages, and no
    layers are added.
    """

    source: ClassVar[str] = "P-DARTS, Chen et al. 2019, arXiv:1904.12760; DrNAS, arXiv:2006.10355"
    guarantee: ClassVar[str] = (
        "as darts of the same order on the remaining candidates; with last 1 the search itself decides"
    )
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
            raise StudyError(
                "counts sets the numbers of remaining candidates: give counts, or stages and last, but not both"
            )
        self._parsed_counts()

    @property
    def alpha_moves_from(self) -> float:
        return self.weights_only / self._stages

    @property
    def phases(self) -> tuple[SearchPhase, ...]:
        """The stages. Alpha must move in each of them; not in the last one if it leaves one candidate."""
        n, option = self._stages, "counts" if self.counts else "stages"
        decided = (self._parsed_counts()[-1] if self.counts else self.last) == 1
        weights_only_parts = [0.0 if decided and stage == n - 1 else self.weights_only for stage in range(n)]
        return tuple(
            SearchPhase(
                what=f"each of the {n} stages",
                option=option,
                begin=stage / n,
                end=(stage + 1) / n,
                acts_from=(stage + part) / n,
            )
            for stage, part in enumerate(weights_only_parts)
        )

    def remaining_candidates(self, k: int) -> int:
        return self.remaining_in_stage(k, self._stages - 1)

    @property
    def _stages(self) -> int:
        return len(self._parsed_counts()) + 1 if self.counts else self.stages

    def remaining_in_stage(self, k: int, stage: int) -> int:
        """Return the number of the k candidates of a site that remain in stage 0, 1, ..."""
        if stage == 0:
            return k
        if self.counts:
            return min(k, self._parsed_counts()[stage - 1])
        last = min(k, self.last)
        # 8 * (1 / 8) ** (1 / 3) is slightly more than 4
        return math.ceil(k * math.pow(last / k, stage / (self.stages - 1)) - 1e-9)

    def init(self, supernet: Supernet, weight_optimiser: torch.optim.Optimizer, loss: Loss) -> SearchState:
        if self.order == 2:
            inner_step(
                weight_optimiser, trainable_weights(supernet)
            )  # refuse an unknown optimiser before the first step
        return initial_state(supernet, weight_optimiser, loss, alpha_optimiser=partial(darts_adam, lr=self.lr))

    def alpha_gradient(self, state: SearchState, train: Batch, val: Batch) -> Hypergradient:
        """Return the gradient of the remaining candidates; no step uses it while only the weights are trained."""
        return alpha_gradient(state, train, val, self._hypergradient, looks_ahead=self.order == 2)

    def step(self, state: SearchState, train: Batch, val: Batch) -> StepReport:
        stage = sum(state.progress >= first / self._stages for first in range(1, self._stages))
        mixtures = state.supernet.mixtures().values()
        decided = stage > 0
        if stage > 0:
            for mixture in mixtures:
                mixture.drop(self._lightest(mixture, stage))
                decided = decided and int(mixture.alive.sum()) == 1
        if decided or state.progress < (stage + self.weights_only) / self._stages:
            return weights_only_step(state, train)
        return alternating_step(state, train, self.alpha_gradient(state, train, val))

    def _lightest(self, mixture: Mixture, stage: int) -> list[str]:
        """Return the candidates to drop in this stage; none if they are dropped already."""
        remaining = mixture.alive
        surplus = int(remaining.sum()) - self.remaining_in_stage(len(mixture.names), stage)
        if surplus <= 0:
            return []
        weight = mixture.weights().double().cpu().abs().reshape(-1, len(mixture.names)).mean(0)
        heaviest_first = weight.masked_fill(~remaining, -1.0).argsort(descending=True, stable=True).tolist()
        ranked = [k for k in heaviest_first if remaining[k]]
        return [mixture.names[k] for k in ranked[-surplus:]]

    def _parsed_counts(self) -> tuple[int, ...]:
        try:
            counts = tuple(int(count) for count in self.counts.split(",")) if self.counts else ()
        except (ValueError, AttributeError):
            counts = (0,)
        if any(count < 1 for count in counts) or any(after >= before for before, after in pairwise(counts)):
            raise StudyError(
                f"counts must be falling whole numbers of at least 1, as '5, 3, 1', but got {self.counts!r}"
            )
        return counts

    @property
    def _hypergradient(self) -> HypergradientFunction:
        return first_order if self.order == 1 else second_order


STRATEGIES.register("shrink", Shrink)
