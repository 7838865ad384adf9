"""The hypergradient at fully trained weights, by the implicit function theorem, with two methods for the inverse.

Computes Hessian-vector products only; the Hessian itself is never built.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from nasact.bilevel.differentiable_optimiser import InnerStep
from nasact.bilevel.hypergradients.base import HYPERGRADIENTS, Hypergradient
from nasact.bilevel.hypergradients.second_order import mixed_product
from nasact.bilevel.problem import Gradients, Problem, Tensors, detached, gradients, leaves, materialise, product
from nasact.errors import StudyError
from nasact.options import require_positive

Operator: TypeAlias = Callable[[Tensors], Tensors]


@dataclass(frozen=True)
class Solve:
    """How the product with the inverse Hessian was computed."""

    iterations: int
    """Number of Hessian-vector products."""
    residual: float
    """Norm relative to that of the right-hand side: of the residual (conjugate gradient), or of the last term
    (Neumann). Above 1 the series grows: the step is too large or the curvature negative."""
    negative_curvature: bool = False
    """Whether conjugate gradient stopped at a direction in which the training loss has no positive curvature."""

    @property
    def trusted(self) -> bool:
        """Whether the result approaches the product with the inverse."""
        return not self.negative_curvature and self.residual <= 1


@dataclass(frozen=True, kw_only=True)
class ImplicitHypergradient(Hypergradient):
    """A hypergradient with the `Solve` of its inverse."""

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

    Lorraine et al. 2020 (arXiv:1911.02590, Alg. 3), H = d2 Ltr / dw2 + damping I. Converges to the exact inverse if
    every eigenvalue of H is in (0, 2 / step); the error falls as the largest |1 - step eigenvalue|^(iterations + 1).
    `inner` is not used: at a minimum of Ltr the result does not depend on the optimiser. The optimiser's weight decay
    is not part of Ltr: pass it as `damping`.
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

    Pedregosa 2016 (arXiv:1602.02355), Alg. 1. If all eigenvalues of H are positive, the result is exact up to rounding
    once the number of iterations reaches the number of distinct eigenvalues. The iteration stops earlier if the
    residual falls below `tolerance` times its start. At negative curvature it also stops, sets
    `solve.negative_curvature` and uses the sum so far: only the direct part remains if that is the first direction. A
    network's H is rarely positive definite without damping. `inner` is not used, as in `implicit_neumann`.
    """
    require_options(iterations=iterations, tolerance=tolerance, damping=damping)
    return _implicit(
        problem, w, alpha, damping, lambda hessian, v: conjugate_gradient(hessian, v, iterations, tolerance)
    )


def require_options(
    *, iterations: int, damping: float, step: float | None = None, tolerance: float | None = None
) -> None:
    """Raise StudyError, with the name of the option, if an option is out of range."""
    if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
        raise StudyError(f"iterations must be a whole number of at least 1, but got {iterations!r}")
    if not (math.isfinite(damping) and damping >= 0):
        raise StudyError(f"damping must be a number of at least 0, but got {damping}")
    if step is not None:
        require_positive("step", step)
    if tolerance is not None:
        require_positive("tolerance", tolerance)
        if tolerance >= 1:
            raise StudyError(f"tolerance must be below 1 (at 1 no iteration would run), but got {tolerance}")


def neumann(operator: Operator, v: Tensors, iterations: int, step: float) -> tuple[Tensors, Solve]:
    """Return step sum_{j=0..iterations} (I - step A)^j v; `operator` is x -> A x."""
    total, term, start = v, v, _dot(v, v)
    for _ in range(iterations):
        term = _add(term, operator(term), -step)
        total = _add(total, term, 1.0)
    residual = (_dot(term, term) / start) ** 0.5 if start != 0 else 0.0
    return tuple(step * part for part in total), Solve(iterations, residual)


def conjugate_gradient(operator: Operator, v: Tensors, iterations: int, tolerance: float) -> tuple[Tensors, Solve]:
    """Return A^-1 v for a positive definite A; `operator` is x -> A x (Hestenes and Stiefel 1952)."""
    x = tuple(torch.zeros_like(part) for part in v)
    residual, direction, start = v, v, _dot(v, v)
    square, done, negative_curvature = start, 0, False
    # NaN must not end the loop: it must reach the gradient of alpha, where the search raises Divergence.
    while done < iterations and not square <= tolerance**2 * start:
        image = operator(direction)
        curvature = _dot(direction, image)
        if curvature <= 0:
            negative_curvature = True
            break
        length = square / curvature
        x, residual = _add(x, direction, length), _add(residual, image, -length)
        previous_square, square = square, _dot(residual, residual)
        direction = _add(residual, direction, square / previous_square)
        done += 1
    relative_residual = (square / start) ** 0.5 if start != 0 else 0.0
    return x, Solve(done, relative_residual, negative_curvature)


def _implicit(
    problem: Problem,
    w: Tensors,
    alpha: Tensors,
    damping: float,
    inverse: Callable[[Operator, Tensors], tuple[Tensors, Solve]],
) -> ImplicitHypergradient:
    w, alpha = leaves(w), leaves(alpha)
    train_loss = problem.train_loss(w, alpha)
    # One graph, used by every Hessian-vector product and by the mixed product at the end.
    grads = gradients(train_loss, w, create_graph=True)
    val_loss, direct, val_grads = _validation(problem, w, alpha)
    # A weight that does not reach Ltr has no mixed derivative: its part of the inverse has no effect and is left out.
    reached = [index for index, grad in enumerate(grads) if grad is not None]
    train_grads, weights = tuple(grads[index] for index in reached), tuple(w[index] for index in reached)

    def hessian(x: Tensors) -> Tensors:
        image = materialise(product(train_grads, weights, x, retain_graph=True), weights)
        return image if damping == 0 else _add(image, x, damping)

    x, solve = inverse(hessian, materialise(tuple(val_grads[index] for index in reached), weights))
    mixed = mixed_product(train_grads, alpha, x)
    return ImplicitHypergradient(
        alpha=tuple(part - indirect for part, indirect in zip(direct, mixed, strict=True)),
        train_loss=train_loss.detach(),
        val_loss=val_loss,
        weights=detached(grads),
        solve=solve,
    )


def _validation(problem: Problem, w: Tensors, alpha: Tensors) -> tuple[Tensor, Tensors, Gradients]:
    """Return Lval, grad_alpha Lval, grad_w Lval."""
    loss = problem.val_loss(w, alpha)
    found = gradients(loss, (*w, *alpha))
    return loss.detach(), materialise(found[len(w) :], alpha), found[: len(w)]


def _add(one: Tensors, other: Tensors, scale: float) -> Tensors:
    return tuple(torch.add(a, b, alpha=scale) for a, b in zip(one, other, strict=True))


def _dot(one: Tensors, other: Tensors) -> float:
    """Return <one, other>, summed at least in float32; one value is copied from the device, not one per tensor."""
    if not one:
        return 0.0
    products = [
        torch.sum(a * b, dtype=torch.promote_types(a.dtype, torch.float32)) for a, b in zip(one, other, strict=True)
    ]
    return float(torch.stack(products).sum())


HYPERGRADIENTS.register("implicit_neumann", implicit_neumann)
HYPERGRADIENTS.register("implicit_conjugate_gradient", implicit_conjugate_gradient)
