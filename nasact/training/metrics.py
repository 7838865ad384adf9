"""What a network does on data it is not trained on, and whether its losses are still numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nasact.errors import Divergence
from nasact.training.batches import Labelled, require_examples

Loss = Callable[[Tensor, Tensor], Tensor]
EVALUATION_BATCH = 1024


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Mean loss and accuracy (a fraction) over a split."""

    loss: float
    accuracy: float


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every submodule is back in the mode it had."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def evaluate(
    module: nn.Module, split: Labelled, *, loss: Loss = cross_entropy, place: str = "evaluation"
) -> Evaluation:
    """Mean loss and accuracy of `module` on `split`; `place` is the name for the line that tells of a divergence."""
    count = require_examples(split, place)
    total_loss = torch.zeros((), dtype=torch.float64, device=split.y.device)
    correct = torch.zeros((), dtype=torch.int64, device=split.y.device)
    # not inference_mode: a tensor cached under it could never again take part in autograd
    with evaluating(module), torch.no_grad():
        for x, y in zip(split.x.split(EVALUATION_BATCH), split.y.split(EVALUATION_BATCH), strict=True):
            output = module(x)
            total_loss += loss(output, y).double() * len(y)
            correct += (output.argmax(dim=-1) == y).sum()
    return Evaluation(loss=finite(total_loss.item() / count, place), accuracy=correct.item() / count)


def finite(value: float, place: str) -> float:
    """`value`, or Divergence with the place where it stopped being a number."""
    if not math.isfinite(value):
        raise Divergence(f"{place}: training diverged: expected a finite loss, but got {value}")
    return value
