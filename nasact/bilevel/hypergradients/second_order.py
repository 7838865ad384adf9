"""The exact hypergradient through one inner step, without one autograd graph over that step and the two losses."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nasact.bilevel.differentiable_optimiser import InnerStep
from nasact.bilevel.hypergradients.base import HYPERGRADIENTS, Hypergradient
from nasact.bilevel.problem import Gradients, Problem, Tensors, detached, gradients, leaves, materialise, product


@dataclass(frozen=True)
class LookAhead:
    """The result of one virtual inner step w -> w'."""

    direct: Tensors
    """The direct part of the hypergradient: grad_alpha Lval(w', alpha)."""
    v: Gradients
    """d Lval(w', alpha) / d g with g = grad_w Ltr(w, alpha): the gradient at w', backpropagated through the update rule
    with its momentum, moments and weight decay. None for a weight whose gradient does not reach Lval."""
    val_loss: Tensor


def look_ahead(problem: Problem, w: Tensors, grads: Gradients, alpha: Tensors, inner: InnerStep) -> LookAhead:
    """Take the inner step from `w` with `grads`, differentiate Lval there, backpropagate to `grads`."""
    w = tuple(weight.detach() for weight in w)
    grad_leaves = tuple(None if grad is None else grad.detach().requires_grad_() for grad in grads)
    stepped = inner(w, grad_leaves)
    w_next, alpha = leaves(stepped), leaves(alpha)
    loss = problem.val_loss(w_next, alpha)
    found = gradients(loss, (*w_next, *alpha))
    return LookAhead(
        direct=materialise(found[len(w) :], alpha),
        v=product(stepped, grad_leaves, found[: len(w)]),
        val_loss=loss.detach(),
    )


def mixed_product(grads: Gradients, alpha: Tensors, v: Gradients) -> Tensors:
    """Return d/d alpha <grads, v>, exactly; `grads` = grad_w Ltr(w, alpha) with its autograd graph.

    Shapes: `v` like `grads`; the result like `alpha`. One backward pass over the graph, only along paths to alpha.
    """
    return materialise(product(grads, alpha, v), alpha)


def second_order(problem: Problem, w: Tensors, alpha: Tensors, inner: InnerStep) -> Hypergradient:
    """Second-order DARTS (arXiv:1806.09055, eq. 7) with the exact mixed product instead of a finite difference."""
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


HYPERGRADIENTS.register("second_order", second_order)
