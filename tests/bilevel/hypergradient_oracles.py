"""The test problems of the hypergradients with their exact answers, in closed form or by dense algebra in float64.

Only the losses of the CNN come from the code under test: optimiser steps are torch's own, inverses LAPACK's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from bilevel_problems import Quadratic, cnn_case
from torch import Tensor, nn
from torch.nn import functional as F

from nasact.bilevel.differentiable_optimiser import InnerStep, inner_step
from nasact.bilevel.problem import Problem


@dataclass(frozen=True)
class Point:
    """A problem at a point (w, alpha), with its derivatives there as dense float64 tensors: n weights, k alphas."""

    problem: Problem
    w: tuple[Tensor, ...]
    alpha: tuple[Tensor, ...]
    optimiser: torch.optim.Optimizer
    weights: list[nn.Parameter]
    slope: Tensor
    """grad_w Ltr (n,)."""
    hessian: Tensor
    """d2 Ltr / dw2 (n, n)."""
    mixed: Tensor
    """d2 Ltr / dw d alpha (n, k)."""
    validation: Callable[[Tensor], tuple[Tensor, Tensor]]
    """Weights (n,) -> grad_w Lval (n,), grad_alpha Lval (k,)."""

    @property
    def inner(self) -> InnerStep:
        return inner_step(self.optimiser, self.weights)

    @property
    def flat(self) -> Tensor:
        return torch.cat([weight.flatten() for weight in self.w])


@dataclass(frozen=True)
class Ridge:
    """Logistic regression; alpha is the logarithm of the ridge coefficient, which does not apply to the bias.

    Ltr = mean log(1 + exp(-y z)) + exp(alpha) |w|^2 / 2, z = X w + b, y in {-1, 1}; Lval is its first term on
    other data.
    """

    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]

    @classmethod
    def draw(cls, seed: int = 0, n: int = 30, d: int = 5) -> Ridge:
        g = torch.Generator().manual_seed(seed)
        truth = torch.randn(d, generator=g, dtype=torch.float64)

        def sample() -> tuple[Tensor, Tensor]:
            x = torch.randn(n, d, generator=g, dtype=torch.float64)
            return x, torch.sign(x @ truth + torch.randn(n, generator=g, dtype=torch.float64))

        return cls(sample(), sample())

    def train_loss(self, w, alpha):
        return self.loss(self.train, w) + alpha[0].exp().sum() * w[0].square().sum() / 2

    def val_loss(self, w, alpha):
        return self.loss(self.val, w)

    def loss(self, batch, w):
        return F.softplus(-batch[1] * (batch[0] @ w[0] + w[1])).mean()

    def gradient_and_hessian(self, batch, w: Tensor) -> tuple[Tensor, Tensor]:
        """Return gradient and Hessian of the unpenalised loss in (w, b) (d + 1,)."""
        x = torch.cat([batch[0], torch.ones(len(batch[0]), 1, dtype=w.dtype)], 1)
        miss = torch.sigmoid(-batch[1] * (x @ w))
        return -x.T @ (batch[1] * miss) / len(x), x.T @ ((miss * (1 - miss))[:, None] * x) / len(x)


def quadratic() -> Point:
    problem, (weights, optimiser), g = (
        Quadratic.draw(),
        weights_with_momentum(((2,), (3,))),
        torch.Generator().manual_seed(4),
    )
    alpha = tuple(torch.randn(n, generator=g, dtype=torch.float64) for n in (1, 2))
    w = torch.cat([weight.detach() for weight in weights])

    def validation(w: Tensor) -> tuple[Tensor, Tensor]:
        return problem.C.T @ (problem.C @ w - problem.d), problem.r * torch.cat(alpha)

    slope = problem.A @ w - problem.B @ torch.cat(alpha)
    return Point(
        problem, detached(weights), alpha, optimiser, weights, slope, problem.A, -problem.B, validation
    )  # fmt: skip


def ridge() -> Point:
    problem, (weights, optimiser) = Ridge.draw(), weights_with_momentum(((5,), (1,)))
    alpha = (torch.tensor([-1.5], dtype=torch.float64),)
    w = torch.cat([weight.detach() for weight in weights])
    slope, hessian = problem.gradient_and_hessian(problem.train, w)
    free = torch.tensor([1.0] * 5 + [0.0], dtype=torch.float64)
    penalty = alpha[0].exp() * free

    def validation(w: Tensor) -> tuple[Tensor, Tensor]:
        return problem.gradient_and_hessian(problem.val, w)[0], torch.zeros(1, dtype=w.dtype)

    return Point(
        problem, detached(weights), alpha, optimiser, weights,
        slope + penalty * w, hessian + torch.diag(penalty), (penalty * w)[:, None], validation,
    )  # fmt: skip


def cnn(optimiser: str) -> Point:
    """Return a CNN with dropout, BatchNorm and tied weights; its dense derivatives are by autograd."""
    case = cnn_case(optimiser)
    problem, weights = case.problem, case.supernet.weight_parameters()
    shapes, lengths = [weight.shape for weight in weights], [weight.numel() for weight in weights]
    counts = [len(alpha) for alpha in problem.alpha]

    def split_weights(w: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.reshape(shape) for part, shape in zip(w.split(lengths), shapes, strict=True))

    w = torch.cat([weight.flatten() for weight in problem.w]).requires_grad_()
    alpha = torch.cat(problem.alpha).requires_grad_()
    (slope,) = torch.autograd.grad(problem.train_loss(split_weights(w), alpha.split(counts)), w, create_graph=True)
    units = torch.eye(len(w), dtype=w.dtype)
    hessian, mixed = torch.autograd.grad(slope, (w, alpha), units, is_grads_batched=True)

    def validation(w: Tensor) -> tuple[Tensor, Tensor]:
        w = w.detach().requires_grad_()
        found = torch.autograd.grad(problem.val_loss(split_weights(w), alpha.split(counts)), (w, alpha))
        return found[0], found[1]

    return Point(
        problem, problem.w, problem.alpha, case.optimiser, weights, slope.detach(), hessian, mixed, validation
    )  # fmt: skip


PROBLEMS: dict[str, Callable[[], Point]] = {
    "quadratic": cache(quadratic),
    "ridge": cache(ridge),
    "cnn_sgd_momentum": cache(lambda: cnn("sgd_momentum")),
    "cnn_adam": cache(lambda: cnn("adam")),
}


def weights_with_momentum(shapes: tuple[tuple[int, ...], ...]) -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
    """Return random weights, and SGD after one step, so that it has momentum buffers."""
    g = torch.Generator().manual_seed(3)
    weights = [nn.Parameter(torch.randn(shape, generator=g, dtype=torch.float64)) for shape in shapes]
    optimiser = torch.optim.SGD(weights, lr=0.05, momentum=0.9, weight_decay=0.1)
    for weight in weights:
        weight.grad = torch.randn(weight.shape, generator=g, dtype=torch.float64)
    optimiser.step()
    return weights, optimiser


def detached(weights: list[nn.Parameter]) -> tuple[Tensor, ...]:
    return tuple(weight.detach() for weight in weights)


Parts = tuple[Tensor, Tensor]
"""The direct part of a hypergradient, and the indirect part, through the weights; both (k,)."""


def direct_part_only(point: Point) -> Parts:
    direct = point.validation(point.flat)[1]
    return direct, torch.zeros_like(direct)


def one_step_ahead(point: Point) -> Parts:
    """w' is computed by torch's own step; its derivative d w' / d slope is diagonal, see `derivative_of_step`."""
    stepped, derivative = real_step(point)
    val_slope, direct = point.validation(stepped)
    return direct, point.mixed.T @ (derivative * val_slope)


def exact_inverse(point: Point, *, damping: float) -> Parts:
    val_slope, direct = point.validation(point.flat)
    hessian = point.hessian + damping * torch.eye(len(val_slope), dtype=val_slope.dtype)
    return direct, -point.mixed.T @ torch.linalg.solve(hessian, val_slope)


def truncated_series(point: Point, *, step: float, iterations: int) -> Parts:
    """The series, summed for each eigenvalue of the Hessian."""
    val_slope, direct = point.validation(point.flat)
    values, vectors = torch.linalg.eigh(point.hessian)
    filtered = sum((step * (1 - step * values) ** j for j in range(iterations + 1)), torch.zeros_like(values))
    return direct, -point.mixed.T @ (vectors @ (filtered * (vectors.T @ val_slope)))


def real_step(point: Point) -> tuple[Tensor, Tensor]:
    """Return the weights (n,) after a step of torch's optimiser, and the derivative of each by its slope (n,)."""
    twins = [nn.Parameter(weight.detach().clone()) for weight in point.weights]
    optimiser = type(point.optimiser)(twins, **point.optimiser.defaults)
    optimiser.load_state_dict(copy.deepcopy(point.optimiser.state_dict()))
    (group,) = optimiser.param_groups
    slopes = point.slope.split([twin.numel() for twin in twins])
    derivatives = []
    for twin, slope in zip(twins, slopes, strict=True):
        # torch gives a weight that the loss does not reach no gradient instead of zero
        twin.grad = slope.reshape(twin.shape).clone() if bool(slope.abs().sum() > 0) else None
        derivatives.append(derivative_of_step(optimiser, group, twin).flatten())
    optimiser.step()
    return torch.cat([twin.detach().flatten() for twin in twins]), torch.cat(derivatives)


def derivative_of_step(optimiser: torch.optim.Optimizer, group: dict, weight: nn.Parameter) -> Tensor:
    if weight.grad is None:
        return torch.zeros_like(weight).detach()
    if isinstance(optimiser, torch.optim.SGD):
        return torch.full_like(weight, -group["lr"]).detach()
    assert type(optimiser) is torch.optim.Adam
    state, (b1, b2), w = optimiser.state[weight], group["betas"], weight.detach()
    slope = weight.grad + group["weight_decay"] * w
    t = float(state["step"]) + 1
    mean, square = b1 * state["exp_avg"] + (1 - b1) * slope, b2 * state["exp_avg_sq"] + (1 - b2) * slope**2
    root, bias = square.sqrt(), (1 - b2**t) ** 0.5
    bottom = root / bias + group["eps"]
    return -group["lr"] / (1 - b1**t) * ((1 - b1) / bottom - mean * (1 - b2) * slope / (root * bias) / bottom**2)
