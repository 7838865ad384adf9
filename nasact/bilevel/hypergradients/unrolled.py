"""The hypergradient by plain autograd through inner steps kept in one graph: the oracle, at the price of memory."""

from __future__ import annotations

from torch import Tensor

from nasact.bilevel.differentiable_optimiser import InnerStep
from nasact.bilevel.hypergradients.base import Hypergradient
from nasact.bilevel.problem import Problem, Tensors, gradients, leaves, materialise


def unrolled(problem: Problem, w: Tensors, alpha: Tensors, inner: InnerStep, *, steps: int = 1) -> Hypergradient:
    """d Lval(w_n(alpha), alpha) / d alpha through `steps` inner steps on the training batch.

    Shares no code with `second_order` but the update rule, so that each can be tested against the other.
    """
    w, alpha = leaves(w), leaves(alpha)
    first: Tensor | None = None
    for _ in range(steps):
        train_loss = problem.train_loss(w, alpha)
        first = train_loss.detach() if first is None else first
        w, inner = inner.step(w, gradients(train_loss, w, create_graph=True))
    val_loss = problem.val_loss(w, alpha)
    return Hypergradient(materialise(gradients(val_loss, alpha), alpha), first, val_loss.detach())
