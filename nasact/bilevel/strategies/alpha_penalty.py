"""A term of alpha alone that joins the loss which alpha goes down. Knows no supernet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nasact.bilevel.hypergradients import Hypergradient
from nasact.bilevel.problem import Tensors, leaves


def with_penalty(found: Hypergradient, alphas: Sequence[Tensor], penalty: Callable[[Tensors], Tensor]) -> Hypergradient:
    """`found` with the gradient of `penalty(alphas)`, a 0-d tensor, added to alpha's; its losses stay what they are.

    An alpha that the loss does not reach, whose gradient is zero throughout, keeps that: the penalty alone must not
    look like a search.
    """
    fresh = leaves(alphas)
    added = torch.autograd.grad(penalty(fresh), fresh)
    return replace(
        found,
        alpha=tuple(g + own.to(g) if bool((g != 0).any()) else g for g, own in zip(found.alpha, added, strict=True)),
    )
