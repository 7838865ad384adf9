"""What every hypergradient takes and gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from nasact.bilevel.inner import InnerStep
from nasact.bilevel.problem import Problem, Tensors


@dataclass(frozen=True)
class Hypergradient:
    """d validation loss / d alpha with the losses met on the way; all detached."""

    alpha: Tensors
    train_loss: Tensor | None
    val_loss: Tensor


HypergradientFunction: TypeAlias = Callable[[Problem, Tensors, Tensors, InnerStep], Hypergradient]
