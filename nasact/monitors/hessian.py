"""`hessian`: the curvature of the validation loss in alpha. Uses Hessian-vector products; never builds the Hessian."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nasact.bilevel import Batch, SupernetProblem
from nasact.bilevel.double_backward import NoSecondDerivative, explain_missing_second_derivative, twice_differentiable
from nasact.bilevel.problem import gradients, leaves, materialise, product
from nasact.errors import StudyError
from nasact.monitors.base import MONITORS, Collapse, EpochMetrics, MonitorContext
from nasact.monitors.lanczos import largest_eigenvalue
from nasact.options import require_at_least, require_positive
from nasact.training.batches import permutation
from nasact.training.metrics import Direction, eval_mode
from nasact.training.seeds import derive_seed, generator

EIGENVALUE = "hessian_eigenvalue"
_PRECHECK_EXAMPLES = 2


@dataclass(frozen=True, kw_only=True)
class Hessian:
    """The largest eigenvalue of d2 Lval / d alpha2, and the criterion of DARTS-ES (Zela et al. 2020, section 4.3).

    "Largest" as in the paper: with its sign, not in magnitude. Computed by Lanczos with `iterations` products: a lower
    bound, exact if alpha has at most `iterations` entries. The loss is computed in evaluation mode without
    regularisers: no dropout, BatchNorm with its running statistics, the mean of stochastic mixture weights. Every
    measurement uses the same `examples` of the validation data (or all, if there are fewer); one measurement after
    every `every`-th epoch. Where the normaliser restricts alpha to a set, directions that leave the set count too.

    The Hessian is taken in alpha / T where evaluation divides alpha by a temperature T. Otherwise a falling temperature
    alone would raise the eigenvalue by 1 / T^2 and would be reported as a collapse.

    Collapse: the mean of the last `window` values is more than `factor` times the mean of the window that lies `lag`
    values earlier. The middle of the earlier window must be at epoch `start` or later, as in the authors' code; it is
    the last healthy epoch. Nothing is detected if the earlier mean is zero or below.
    """

    name: ClassVar[str] = "hessian"
    source: ClassVar[str] = "R-DARTS / DARTS-ES, Zela et al. 2020, arXiv:1909.09656, sections 4.1 and 4.3"
    summary: ClassVar[str] = "largest eigenvalue of the validation loss's Hessian in alpha, by Lanczos"
    cost: ClassVar[str] = "`iterations` + 2 passes over `examples` examples every `every` epochs"
    metrics: ClassVar[Mapping[str, Direction]] = {EIGENVALUE: "low"}
    needs_precheck: ClassVar[bool] = True

    every: int = 2
    iterations: int = 20
    examples: int = 256
    window: int = 5
    lag: int = 4
    factor: float = 1.3
    start: int = 10

    def __post_init__(self) -> None:
        for option in ("every", "iterations", "examples", "window", "lag"):
            require_at_least(option, getattr(self, option))
        require_at_least("start", self.start, 0)
        require_positive("factor", self.factor)

    def first_epoch(self) -> int:
        return self.every

    def precheck(self, context: MonitorContext) -> None:
        try:
            self._eigenvalue(context, _examples(context, _PRECHECK_EXAMPLES), iterations=1)
        except NoSecondDerivative as error:
            raise StudyError(
                f"monitor 'hessian' cannot measure this model: it cannot be differentiated twice ({error.reason})"
            ) from error

    def measure(self, context: MonitorContext) -> dict[str, float]:
        if context.epoch % self.every:
            return {}
        batch = _examples(context, self.examples)
        value = _temperature(context) ** 2 * self._eigenvalue(context, batch, self.iterations)
        return {EIGENVALUE: value} if math.isfinite(value) else {}

    def _eigenvalue(self, context: MonitorContext, batch: Batch, iterations: int) -> float:
        seed = derive_seed(context.seed, "monitors.hessian")
        problem = SupernetProblem(context.supernet, context.loss, batch, batch, seed, seed)
        alpha = leaves(problem.alpha)
        with eval_mode(context.supernet), twice_differentiable(context.supernet), explain_missing_second_derivative():
            gradient = gradients(problem.val_loss(problem.w, alpha), alpha, create_graph=True)
            sizes = [a.numel() for a in alpha]

            def hessian_vector_product(vector: Tensor) -> Tensor:
                v = tuple(part.view_as(a).to(a) for part, a in zip(vector.split(sizes), alpha, strict=True))
                parts = materialise(product(gradient, alpha, v, retain_graph=True), alpha)
                return torch.cat([part.reshape(-1).double().cpu() for part in parts])

            return largest_eigenvalue(hessian_vector_product, _start_vector(context), iterations)

    def detect_collapse(self, history: Sequence[EpochMetrics]) -> Collapse | None:
        measured = [(epoch.epoch, epoch.metrics[EIGENVALUE]) for epoch in history if EIGENVALUE in epoch.metrics]
        if len(measured) < self.window + self.lag or history[-1].epoch != measured[-1][0]:
            return None
        values = [value for _, value in measured]
        current = sum(values[-self.window :]) / self.window
        earlier = sum(values[-self.window - self.lag : -self.lag]) / self.window
        middle = measured[-1 - self.lag - self.window // 2][0]
        if middle < self.start or earlier <= 0 or current <= self.factor * earlier:
            return None
        reason = (
            f"the largest eigenvalue of the validation Hessian rose from {earlier:.3g} about epoch {middle} "
            f"by {current / earlier:.3g} times, more than {self.factor:.3g}"
        )
        return Collapse(monitor=self.name, epoch=measured[-1][0], last_healthy_epoch=middle, reason=reason)

    def earliest_collapse(self, warmup: int) -> int | None:
        in_warmup = warmup // self.every  # measurements in the warm-up are not used
        middle = max(in_warmup + self.window - self.window // 2, math.ceil(self.start / self.every))
        return self.every * (middle + self.lag + self.window // 2)


def _examples(context: MonitorContext, count: int) -> Batch:
    """At most `count` validation examples, the same at every epoch."""
    val = context.val
    index = permutation(len(val.y), context.seed, "monitors.hessian")[:count].to(val.y.device)
    return Batch(val.x[index], val.y[index])


def _temperature(context: MonitorContext) -> float:
    """The temperature that evaluation divides alpha by; 1 if it does not divide."""
    mixture = next(iter(context.supernet.mixtures().values()))
    return float(mixture.temperature) if mixture.normaliser.function_of_alpha_over_t else 1.0


def _start_vector(context: MonitorContext) -> Tensor:
    """A fixed random direction, zero for dropped candidates: the Hessian is zero there too."""
    parts: list[Tensor] = []
    for mixture in context.supernet.mixtures().values():
        drawn = torch.randn(
            mixture.alpha.shape,
            generator=generator(context.seed, "monitors.hessian", len(parts)),
            dtype=torch.float64,
        )
        parts.append((drawn * mixture.alive).reshape(-1))
    return torch.cat(parts)


MONITORS.register("hessian", Hessian)
