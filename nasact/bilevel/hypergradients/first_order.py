"""The hypergradient that treats `w` as constant: grad_alpha Lval(w, alpha)."""

from __future__ import annotations

from nasact.bilevel.differentiable_optimiser import InnerStep
from nasact.bilevel.hypergradients.base import HYPERGRADIENTS, Hypergradient
from nasact.bilevel.problem import Problem, Tensors, gradients, leaves, materialise


def first_order(problem: Problem, w: Tensors, alpha: Tensors, inner: InnerStep) -> Hypergradient:
    """First-order DARTS (arXiv:1806.09055, section 2.3 with xi = 0). `inner` is not used."""
    alpha = leaves(alpha)
    loss = problem.val_loss(tuple(weight.detach() for weight in w), alpha)
    return Hypergradient(materialise(gradients(loss, alpha), alpha), None, loss.detach())


HYPERGRADIENTS.register("first_order", first_order)
