"""The hypergradient at the weights that training ends in, by the implicit function theorem, with two inverses.

Knows Hessian-vector products only; the Hessian itself is never built.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from nasact.bilevel.differentiable_optimiser import InnerStep
from nasact.bilevel.hypergradients.base import Hypergradient
from nasact.bilevel.hypergradients.second_order import mixed_product
from nasact.bilevel.problem import Gradients, Problem, Tensors, detached, gradients, leaves, materialise, product
from nasact.errors import StudyError
from nasact.options import require_positive

Operator: TypeAlias = Callable[[Tensors], Tensors]


@dataclass(frozen=True)
class Solve:
    """How the inverse was come by: `iterations` products were taken.

    `residual`: relative to the right-hand side, what is left of it (conjugate gradient), or the size of the last term
    (Neumann): above 1 the series grows, as the step is too large or the curvature negative.
    `negative_curvature`: conjugate gradient met a direction along which the training loss does not curve upwards, and
    stopped before it with what it had.
    """

    iterations: int
    residual: float
    negative_curvature: bool = False

    @property
    def trusted(self) -> bool:
        """Whether what was found is on the way to the inverse."""
        return not self.negative_curvature and self.residual <= 1


@dataclass(frozen=True, kw_only=True)
class ImplicitHypergradient(Hypergradient):
    """A hypergradient that says how its inverse was come by."""

    solve: Solve


def implicit_neumann(
    problem: Problem,
    w: Tensors,
    alpha: Tensors,
    inner: InnerStep,
    *,
    iterations: int = 10,
    step: float = 0.01,
    damping: float = 0.0,
) -> ImplicitHypergradient:
    """grad_alpha Lval - (d2 Ltr / d alpha dw) x, x = step sum_{j=0..iterations} (I - step H)^j grad_w Lval.

    Lorraine et al. 2020 (arXiv:1911.02590, Alg. 3), H = d2 Ltr / dw2 + damping I. Tends to the exact inverse where
    every eigenvalue of H lies in (0, 2 / step); the error falls as the largest |1 - step eigenvalue|^(iterations + 1).
    `inner` is not used: the answer is that at a minimum of Ltr, whichever optimiser leads there. Its weight decay is no
    part of Ltr: give it as `damping`.
    """
    require_options(iterations=iterations, step=step, damping=damping)
    return _implicit(problem, w, alpha, damping, lambda hessian, v: neumann(hessian, v, iterations, step))


def implicit_conjugate_gradient(
    problem: Problem,
    w: Tensors,
    alpha: Tensors,
    inner: InnerStep,
    *,
    iterations: int = 10,
    tolerance: float = 1e-6,
    damping: float = 0.0,
) -> ImplicitHypergradient:
    """grad_alpha Lval - (d2 Ltr / d alpha dw) H^-1 grad_w Lval, H = d2 Ltr / dw2 + damping I, by conjugate gradient.

    Pedregosa 2016 (arXiv:1602.02355), Alg. 1. Exact, but for rounding, after as many iterations as H has distinct
    eigenvalues, if all are positive. Ends earlier where the residual falls below `tolerance` times its start, or at
    negative curvature: then with what it has so far (with nothing but the direct part, at the first direction), and
    `solve.negative_curvature` says so. A network's H is hardly ever positive definite without damping.
    `inner` is not used, as in `implicit_neumann`.
    """
    require_options(iterations=iterations, tolerance=tolerance, damping=damping)
    return _implicit(
        problem, w, alpha, damping, lambda hessian, v: conjugate_gradient(hessian, v, iterations, tolerance)
    )


def require_options(
    *, iterations: int, damping: float, step: float | None = None, tolerance: float | None = None
) -> None:
    """StudyError naming the option that is out of range."""
    if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
        raise StudyError(f"iterations must be a whole number of at least 1, but got {iterations!r}")
    if not (math.isfinite(damping) and damping >= 0):
        raise StudyError(f"damping must be a number of at least 0, but got {damping}")
    if step is not None:
        require_positive("step", step)
    if tolerance is not None:
        require_positive("tolerance", tolerance)
        if tolerance >= 1:
            raise StudyError(f"tolerance must be below 1, where no iteration is left to do, but got {tolerance}")


def neumann(operator: Operator, v: Tensors, iterations: int, step: float) -> tuple[Tensors, Solve]:
    """step sum_{j=0..iterations} (I - step A)^j v, `operator` being x -> A x."""
    total, term, start = v, v, _dot(v, v)
    for _ in range(iterations):
        term = _add(term, operator(term), -step)
        total = _add(total, term, 1.0)
    residual = (_dot(term, term) / start) ** 0.5 if start != 0 else 0.0
    return tuple(step * part for part in total), Solve(iterations, residual)


def conjugate_gradient(operator: Operator, v: Tensors, iterations: int, tolerance: float) -> tuple[Tensors, Solve]:
    """A^-1 v for a positive definite A, `operator` being x -> A x (Hestenes and Stiefel 1952)."""
    x = tuple(torch.zeros_like(part) for part in v)
    rest, direction, start = v, v, _dot(v, v)
    square, done, negative = start, 0, False
    # A square that is no number goes on: it must reach alpha, where a search is told that it diverged.
    while done < iterations and not square <= tolerance**2 * start:
        image = operator(direction)
        curvature = _dot(direction, image)
        if curvature <= 0:
            negative = True
            break
        length = square / curvature
        x, rest = _add(x, direction, length), _add(rest, image, -length)
        before, square = square, _dot(rest, rest)
        direction = _add(rest, direction, square / before)
        done += 1
    residual = (square / start) ** 0.5 if start != 0 else 0.0
    return x, Solve(done, residual, negative)


def _implicit(
    problem: Problem,
    w: Tensors,
    alpha: Tensors,
    damping: float,
    inverse: Callable[[Operator, Tensors], tuple[Tensors, Solve]],
) -> ImplicitHypergradient:
    w, alpha = leaves(w), leaves(alpha)
    train_loss = problem.train_loss(w, alpha)
    # The one graph that every Hessian-vector product and the mixed product at the end go through.
    grads = gradients(train_loss, w, create_graph=True)
    val_loss, direct, pull = _validation(problem, w, alpha)
    # Where a weight does not reach Ltr its part of the inverse meets no mixed derivative: it is left out.
    known = [index for index, grad in enumerate(grads) if grad is not None]
    slopes, weights = tuple(grads[index] for index in known), tuple(w[index] for index in known)

    def hessian(x: Tensors) -> Tensors:
        image = materialise(product(slopes, weights, x, retain_graph=True), weights)
        return image if damping == 0 else _add(image, x, damping)

    x, solve = inverse(hessian, materialise(tuple(pull[index] for index in known), weights))
    mixed = mixed_product(slopes, alpha, x)
    return ImplicitHypergradient(
        alpha=tuple(part - indirect for part, indirect in zip(direct, mixed, strict=True)),
        train_loss=train_loss.detach(),
        val_loss=val_loss,
        weights=detached(grads),
        solve=solve,
    )


def _validation(problem: Problem, w: Tensors, alpha: Tensors) -> tuple[Tensor, Tensors, Gradients]:
    """Lval, grad_alpha Lval, grad_w Lval."""
    loss = problem.val_loss(w, alpha)
    found = gradients(loss, (*w, *alpha))
    return loss.detach(), materialise(found[len(w) :], alpha), found[: len(w)]


def _add(one: Tensors, other: Tensors, scale: float) -> Tensors:
    return tuple(torch.add(a, b, alpha=scale) for a, b in zip(one, other, strict=True))


def _dot(one: Tensors, other: Tensors) -> float:
    """Summed in single precision at least; one number is fetched from the device, not one a tensor."""
    if not one:
        return 0.0
    products = [
        torch.sum(a * b, dtype=torch.promote_types(a.dtype, torch.float32)) for a, b in zip(one, other, strict=True)
    ]
    return float(torch.stack(products).sum())
