"""The hypergradient by plain autograd through inner steps in one graph: the oracle of the tests; needs more memory."""

from __future__ import annotations

from torch import Tensor

from nasact.bilevel.differentiable_optimiser import InnerStep
from nasact.bilevel.hypergradients.base import HYPERGRADIENTS, Hypergradient
from nasact.bilevel.problem import Problem, Tensors, gradients, leaves, materialise


def unrolled(problem: Problem, w: Tensors, alpha: Tensors, inner: InnerStep, *, steps: int = 1) -> Hypergradient:
    """Return d Lval(w_n(alpha), alpha) / d alpha through `steps` inner steps on the training batch.

    Shares only the update rule with `second_order`, so that each can be tested against the other.
    """
    w, alpha = leaves(w), leaves(alpha)
    first_train_loss: Tensor | None = None
    for _ in range(steps):
        train_loss = problem.train_loss(w, alpha)
        if first_train_loss is None:
            first_train_loss = train_loss.detach()
        w, inner = inner.step(w, gradients(train_loss, w, create_graph=True))
    val_loss = problem.val_loss(w, alpha)
    return Hypergradient(materialise(gradients(val_loss, alpha), alpha), first_train_loss, val_loss.detach())


HYPERGRADIENTS.register("unrolled", unrolled)
