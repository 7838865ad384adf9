"""The hypergradient through one inner step, exact, without ever building the graph of that step and the two losses."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nasact.bilevel.differentiable_optimiser import InnerStep
from nasact.bilevel.hypergradients.base import Hypergradient
from nasact.bilevel.problem import Gradients, Problem, Tensors, detached, gradients, leaves, materialise, product


@dataclass(frozen=True)
class LookAhead:
    """What one virtual inner step tells: the direct part of the hypergradient, and where the indirect part pulls.

    `v` is d Lval(w', alpha) / d g, g = grad_w Ltr(w, alpha): the gradient at w' pulled back through the whole update
    rule, momentum, moments and weight decay included. `v` is None where a weight's gradient does not reach Lval.
    """

    direct: Tensors
    v: Gradients
    val_loss: Tensor


def look_ahead(problem: Problem, w: Tensors, grads: Gradients, alpha: Tensors, inner: InnerStep) -> LookAhead:
    """Take the inner step from `w` along `grads`, differentiate Lval there, pull it back to `grads`."""
    w = tuple(weight.detach() for weight in w)
    steps = tuple(None if grad is None else grad.detach().requires_grad_() for grad in grads)
    moved = inner(w, steps)
    w_next, alpha = leaves(moved), leaves(alpha)
    loss = problem.val_loss(w_next, alpha)
    found = gradients(loss, (*w_next, *alpha))
    return LookAhead(
        direct=materialise(found[len(w) :], alpha),
        v=product(moved, steps, found[: len(w)]),
        val_loss=loss.detach(),
    )


def mixed_product(grads: Gradients, alpha: Tensors, v: Gradients) -> Tensors:
    """d/d alpha <grads, v>, exactly, where `grads` = grad_w Ltr(w, alpha) still carries its graph.

    Shapes: `v` like `grads`; the result like `alpha`. One backward pass over the graph, along paths to alpha only.
    """
    return materialise(product(grads, alpha, v), alpha)


def second_order(problem: Problem, w: Tensors, alpha: Tensors, inner: InnerStep) -> Hypergradient:
    """Second-order DARTS (arXiv:1806.09055, eq. 7) with the mixed product taken exactly instead of by a difference."""
    w, alpha = leaves(w), leaves(alpha)
    train_loss = problem.train_loss(w, alpha)
    grads = gradients(train_loss, w, create_graph=True)
    ahead = look_ahead(problem, w, grads, alpha, inner)
    mixed = mixed_product(grads, alpha, ahead.v)
    return Hypergradient(
        tuple(direct + indirect for direct, indirect in zip(ahead.direct, mixed, strict=True)),
        train_loss.detach(),
        ahead.val_loss,
        detached(grads),
    )
