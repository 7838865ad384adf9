"""The hypergradient through one inner step with the DARTS paper's finite difference instead of the exact product."""

from __future__ import annotations

import torch

from nasact.bilevel.differentiable_optimiser import InnerStep
from nasact.bilevel.hypergradients.base import HYPERGRADIENTS, Hypergradient
from nasact.bilevel.hypergradients.second_order import look_ahead
from nasact.bilevel.problem import Problem, Tensors, gradients, leaves, materialise


def finite_difference(
    problem: Problem, w: Tensors, alpha: Tensors, inner: InnerStep, *, step: float = 0.01
) -> Hypergradient:
    """Second-order DARTS with the paper's difference (arXiv:1806.09055, eq. 8): w +- step * v / norm(v), around w.

    Accurate if the losses are smooth over that step. If a candidate has a kink, the error can be as large as the
    second-order term itself.
    """
    w, alpha = leaves(w), leaves(alpha)
    train_loss = problem.train_loss(w, alpha)
    grads = gradients(train_loss, w)
    ahead = look_ahead(problem, w, grads, alpha, inner)
    v = tuple(torch.zeros_like(weight) if part is None else part for part, weight in zip(ahead.v, w, strict=True))
    norm = _norm(v)
    hypergradient = ahead.direct
    if norm != 0:
        epsilon = step / norm
        above, below = (
            _alpha_gradient(
                problem,
                tuple(
                    torch.add(weight.detach(), part, alpha=side * epsilon) for weight, part in zip(w, v, strict=True)
                ),
                alpha,
            )
            for side in (1.0, -1.0)
        )
        hypergradient = tuple(
            direct + (up - down) / (2 * epsilon) for direct, up, down in zip(ahead.direct, above, below, strict=True)
        )
    return Hypergradient(hypergradient, train_loss.detach(), ahead.val_loss, grads)


def _alpha_gradient(problem: Problem, w: Tensors, alpha: Tensors) -> Tensors:
    alpha = leaves(alpha)
    return materialise(gradients(problem.train_loss(w, alpha), alpha), alpha)


def _norm(tensors: Tensors) -> float:
    norms = (
        torch.linalg.vector_norm(tensor, dtype=torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors
    )
    return float(sum(float(norm) ** 2 for norm in norms) ** 0.5)


HYPERGRADIENTS.register("finite_difference", finite_difference)
