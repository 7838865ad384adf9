"""Candidates whose weights are all exactly zero: they have no part in the value, but alpha keeps its gradient.

A plain product would be NaN where such a candidate overflows or is not defined, as zero times infinity is. Knows terms;
must not know kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nasact.mixture.kernels.base import Term
from nasact.mixture.layout import Layout
from nasact.mixture.torch_transforms import is_transformed_backward, separate_variables


def find_zero_weights(weights: Tensor) -> list[int]:
    """The positions of the candidates whose weights (..., K) are zero in all rows."""
    if weights.dim() == 1:
        return [k for k, weight in enumerate(weights.tolist()) if weight == 0]
    if int(torch.count_nonzero(weights)) == weights.numel():
        return []
    return [k for k, used in enumerate((weights != 0).flatten(0, -2).any(0).tolist()) if not used]


def add_zero_terms(
    total: Tensor, x: Tensor, weights: Sequence[Tensor], terms: Sequence[Term], layout: Layout
) -> Tensor:
    """Return `total` with the gradients that the `terms`, all with weights zero, give to these weights.

    `weights`: one tensor (*layout.shape) for each term. The terms are computed, but not part of the graph of the first
    derivative: x and betas get no gradient through them. Higher derivatives are those of a plain product.
    """
    betas = [beta for term in terms for beta in term.betas]
    added: Tensor = _AddZeroTerms.apply(_Static(tuple(terms), layout), total, x, *weights, *betas)
    return added


@dataclass(frozen=True, eq=False)
class _Static:
    """The terms, of which only the functions are used, and the layout."""

    terms: tuple[Term, ...]
    layout: Layout

    def parts(self, x: Tensor, betas: Sequence[Tensor]) -> list[Tensor]:
        """What each term computes."""
        remaining = iter(betas)
        return [term.function(x, *(next(remaining) for _ in term.betas)) for term in self.terms]


class _AddZeroTerms(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, static: _Static, total: Tensor, x: Tensor, *others: Tensor) -> Tensor:
        count = len(static.terms)
        ctx.static = static
        parts = static.parts(x, others[count:]) if any(ctx.needs_input_grad[3 : 3 + count]) else []
        ctx.save_for_backward(x, *others, *parts)
        return total.clone()  # not a view: the network may overwrite it

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        static, needed = ctx.static, ctx.needs_input_grad[2:]
        count = len(static.terms)
        saved = ctx.saved_tensors  # read once: a checkpoint computes them when they are read
        inputs, parts = saved[: len(needed)], saved[len(needed) :]
        if torch.is_grad_enabled() or is_transformed_backward(g, *inputs):
            return None, g, *_differentiable(static, g, inputs, needed)
        x, weights, betas = inputs[0], inputs[1 : count + 1], inputs[count + 1 :]
        gradients: list[Tensor | None] = [None]
        for weight, part, need in zip(weights, parts, needed[1 : count + 1], strict=bool(parts)):
            view = static.layout.broadcast(weight, x)
            gradients.append((g * part).sum_to_size(view.shape).view(weight.shape).to(weight.dtype) if need else None)
        gradients += [None] * (count + 1 - len(gradients))
        zeros = (
            torch.zeros_like(beta) if need else None for beta, need in zip(betas, needed[count + 1 :], strict=True)
        )
        return None, g, *gradients, *zeros


def _differentiable(
    static: _Static, g: Tensor, inputs: Sequence[Tensor], needed: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients of the sum of the products, as part of the graph."""
    graph, count = torch.is_grad_enabled(), len(static.terms)
    with torch.enable_grad():
        x, *others = separate_variables(*inputs)
        weights, betas = others[:count], others[count:]
        products = [
            part * static.layout.broadcast(weight, x)
            for part, weight in zip(static.parts(x, betas), weights, strict=True)
        ]
        variables = [tensor for tensor, need in zip((x, *others), needed, strict=True) if need]
        gradients = torch.autograd.grad(
            products, variables, [g.to(product.dtype) for product in products],
            create_graph=graph, materialize_grads=True, allow_unused=True,
        )  # fmt: skip
    remaining = iter(gradients)
    return [next(remaining) if need else None for need in needed]
