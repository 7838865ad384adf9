"""The arguments and the result that all hypergradients share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from nasact.bilevel.differentiable_optimiser import InnerStep
from nasact.bilevel.problem import Gradients, Problem, Tensors
from nasact.registry import Registry


@dataclass(frozen=True)
class Hypergradient:
    """d validation loss / d alpha, and what was computed on the way; all tensors are detached."""

    alpha: Tensors
    """d validation loss / d alpha, one tensor per alpha."""
    train_loss: Tensor | None
    """Ltr(w, alpha); None if the function does not compute it."""
    val_loss: Tensor
    weights: Gradients | None = None
    """grad_w Ltr(w, alpha); None if the function does not compute it."""


HypergradientFunction: TypeAlias = Callable[[Problem, Tensors, Tensors, InnerStep], Hypergradient]
"""(problem, w, alpha, inner step) -> hypergradient."""

HYPERGRADIENTS: Registry[HypergradientFunction] = Registry("hypergradient")
