"""An alpha-only penalty added to the architecture loss. Must not know supernets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nasact.bilevel.hypergradients.base import Hypergradient
from nasact.bilevel.problem import Tensors, leaves


def with_penalty(
    hypergradient: Hypergradient, alphas: Sequence[Tensor], penalty: Callable[[Tensors], Tensor | None]
) -> Hypergradient:
    """Return `hypergradient` plus the gradient of `penalty(alphas)`, a 0-d tensor (None: no penalty); losses unchanged.

    An alpha that the loss does not reach, so that its gradient is zero everywhere, keeps this zero: a gradient of only
    the penalty would hide that the mixture has no effect.
    """
    penalised_alphas = leaves(alphas)
    value = penalty(penalised_alphas)
    if value is None:
        return hypergradient
    penalty_grads = torch.autograd.grad(value, penalised_alphas)
    return replace(
        hypergradient,
        alpha=tuple(
            g + penalty_grad.to(g) if bool((g != 0).any()) else g
            for g, penalty_grad in zip(hypergradient.alpha, penalty_grads, strict=True)
        ),
    )
