"""Loss and accuracy of a network in evaluation mode, and the check that a loss is finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nasact.errors import Divergence
from nasact.training.batches import LabelledExamples, require_examples

Loss = Callable[[Tensor, Tensor], Tensor]
Direction = Literal["low", "high"]
"""Whether low or high values of a metric are better."""
EVALUATION_BATCH_SIZE = 1024


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Mean loss and accuracy (a fraction) over a split."""

    loss: float
    accuracy: float


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Switch to eval mode, and restore the mode of every submodule at the end."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def evaluate(
    module: nn.Module, split: LabelledExamples, *, loss: Loss = cross_entropy, place: str = "evaluation"
) -> Evaluation:
    """Mean loss and accuracy of `module` on `split`.

    Raises Divergence if the loss is not finite; the message begins with `place`.
    """
    count = require_examples(split, place)
    total_loss = torch.zeros((), dtype=torch.float64, device=split.y.device)
    correct = torch.zeros((), dtype=torch.int64, device=split.y.device)
    # not inference_mode: autograd could never use a tensor that a module caches under it
    with eval_mode(module), torch.no_grad():
        for x, y in zip(split.x.split(EVALUATION_BATCH_SIZE), split.y.split(EVALUATION_BATCH_SIZE), strict=True):
            output = module(x)
            total_loss += loss(output, y).double() * len(y)
            correct += (output.argmax(dim=-1) == y).sum()
    return Evaluation(loss=require_finite(total_loss.item() / count, place), accuracy=correct.item() / count)


def require_finite(value: float, place: str) -> float:
    """Return the loss `value`; raise Divergence if it is not finite. The message begins with `place`."""
    if not math.isfinite(value):
        raise Divergence(f"{place}: training diverged: expected a finite loss, but got {value}")
    return value
