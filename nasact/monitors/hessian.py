"""`hessian`: how sharply the validation loss curves in alpha. By products with the Hessian; it is never built."""

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
from nasact.monitors.base import Better, Collapse, EpochMetrics, MonitorContext, require_whole
from nasact.monitors.lanczos import largest_eigenvalue
from nasact.options import require_positive
from nasact.training.batches import Labelled, permutation
from nasact.training.metrics import evaluating
from nasact.training.seeds import derive_seed, generator

EIGENVALUE = "hessian_eigenvalue"
_REHEARSED = 2


@dataclass(frozen=True, kw_only=True)
class Hessian:
    """The largest eigenvalue of d2 Lval / d alpha2, and the criterion of DARTS-ES (Zela et al. 2020, section 4.3).

    "Largest" is as in the paper: with its sign, not in magnitude. By Lanczos with `iterations` products, so a bound
    from below, exact where alpha has no more entries. The loss is that of evaluation mode, without regularisers: no
    dropout, BatchNorm as in evaluation, the means of mixture weights that are drawn. Its data are the same `examples`
    of the validation data at every epoch (fewer where there are fewer). It is measured after every `every`-th epoch.
    Where the normaliser restricts alpha to a set, directions out of the set count too.

    In alpha / T where evaluation divides alpha by a temperature T: else a falling temperature alone would raise the
    eigenvalue by 1 / T^2, and be told as a collapse.

    Collapse: the mean of the last `window` values is more than `factor` times the mean that lies `lag` values earlier,
    the earlier window having its middle at epoch `start` or later (so in the authors' code). That middle is the last
    epoch held to be healthy. An earlier mean of zero or below tells nothing.
    """

    name: ClassVar[str] = "hessian"
    source: ClassVar[str] = "R-DARTS / DARTS-ES, Zela et al. 2020, arXiv:1909.09656, sections 4.1 and 4.3"
    summary: ClassVar[str] = "largest eigenvalue of the validation loss's Hessian in alpha, by Lanczos"
    cost: ClassVar[str] = "`iterations` + 2 passes over `examples` examples every `every` epochs"
    metrics: ClassVar[Mapping[str, Better]] = {EIGENVALUE: "low"}
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
            require_whole(option, getattr(self, option))
        require_whole("start", self.start, 0)
        require_positive("factor", self.factor)

    def first_epoch(self) -> int:
        return self.every

    def precheck(self, context: MonitorContext) -> None:
        try:
            self._eigenvalue(context, _chosen(context, _REHEARSED), iterations=1)
        except NoSecondDerivative as error:
            raise StudyError(
                f"monitor 'hessian' cannot serve here: the model cannot be differentiated twice ({error.reason})"
            ) from error

    def measure(self, context: MonitorContext) -> dict[str, float]:
        if context.epoch % self.every:
            return {}
        value = _temperature(context) ** 2 * self._eigenvalue(context, _chosen(context, self.examples), self.iterations)
        return {EIGENVALUE: value} if math.isfinite(value) else {}

    def _eigenvalue(self, context: MonitorContext, batch: Batch, iterations: int) -> float:
        seed = derive_seed(context.seed, "monitors.hessian")
        problem = SupernetProblem(context.supernet, context.loss, batch, batch, seed, seed)
        alpha = leaves(problem.alpha)
        with evaluating(context.supernet), twice_differentiable(context.supernet), explain_missing_second_derivative():
            slope = gradients(problem.val_loss(problem.w, alpha), alpha, create_graph=True)

            def times(vector: Tensor) -> Tensor:
                v = tuple(part.view_as(a).to(a) for part, a in zip(vector.split(sizes), alpha, strict=True))
                found = materialise(product(slope, alpha, v, retain_graph=True), alpha)
                return torch.cat([part.reshape(-1).double().cpu() for part in found])

            sizes = [a.numel() for a in alpha]
            return largest_eigenvalue(times, _start(context), iterations)

    def detect_collapse(self, history: Sequence[EpochMetrics]) -> Collapse | None:
        measured = [(epoch.epoch, epoch.metrics[EIGENVALUE]) for epoch in history if EIGENVALUE in epoch.metrics]
        if len(measured) < self.window + self.lag or history[-1].epoch != measured[-1][0]:
            return None
        values = [value for _, value in measured]
        now = sum(values[-self.window :]) / self.window
        before = sum(values[-self.window - self.lag : -self.lag]) / self.window
        middle = measured[-1 - self.lag - self.window // 2][0]
        if middle < self.start or before <= 0 or now <= self.factor * before:
            return None
        reason = (
            f"the largest eigenvalue of the validation Hessian rose from {before:.3g} about epoch {middle} "
            f"by {now / before:.3g} times, more than {self.factor:.3g}"
        )
        return Collapse(monitor=self.name, epoch=measured[-1][0], last_healthy_epoch=middle, reason=reason)

    def earliest_collapse(self, warmup: int) -> int | None:
        done = warmup // self.every  # measurements in the warm-up, which count for nothing
        middle = max(done + self.window - self.window // 2, math.ceil(self.start / self.every))
        return self.every * (middle + self.lag + self.window // 2)


def _chosen(context: MonitorContext, most: int) -> Batch:
    """The same examples at every epoch."""
    data: Labelled = context.val
    index = permutation(len(data.y), context.seed, "monitors.hessian")[:most].to(data.y.device)
    return Batch(data.x[index], data.y[index])


def _temperature(context: MonitorContext) -> float:
    mixture = next(iter(context.supernet.mixtures().values()))
    return float(mixture.temperature) if mixture.normaliser.of_logits else 1.0


def _start(context: MonitorContext) -> Tensor:
    """A fixed random direction among the candidates alive: the Hessian is zero on those that were dropped."""
    parts: list[Tensor] = []
    for mixture in context.supernet.mixtures().values():
        drawn = torch.randn(
            mixture.alpha.shape,
            generator=generator(context.seed, "monitors.hessian", len(parts)),
            dtype=torch.float64,
        )
        parts.append((drawn * mixture.alive).reshape(-1))
    return torch.cat(parts)
