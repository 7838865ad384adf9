"""What every hypergradient takes and gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from nasact.bilevel.differentiable_optimiser import InnerStep
from nasact.bilevel.problem import Gradients, Problem, Tensors


@dataclass(frozen=True)
class Hypergradient:
    """d validation loss / d alpha with what was met on the way: the losses, and grad_w Ltr(w, alpha); all detached."""

    alpha: Tensors
    train_loss: Tensor | None
    val_loss: Tensor
    weights: Gradients | None = None


HypergradientFunction: TypeAlias = Callable[[Problem, Tensors, Tensors, InnerStep], Hypergradient]
