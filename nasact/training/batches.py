"""Batches of data that is already in memory: indexing, no workers, no state to checkpoint within an epoch.

The order is a pure function of (seed, phase, epoch). Must not know where the data came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from nasact.bilevel import Batch
from nasact.errors import DataError
from nasact.training.seeds import generator


class LabelledExamples(Protocol):
    """Examples with their labels: `tasks.Split`, or any object with the same two tensors."""

    @property
    def x(self) -> Tensor: ...

    @property
    def y(self) -> Tensor: ...


def permutation(count: int, seed: int, *names: object) -> Tensor:
    """A random order of `count` examples for the purpose called `names`."""
    return torch.randperm(count, generator=generator(seed, "order", *names))


def batch_sizes(count: int, batch_size: int) -> tuple[int, ...]:
    """The sizes of the batches of one epoch; a last batch of a single example is dropped.

    BatchNorm cannot compute a variance from a batch of one.
    """
    size = max(1, min(batch_size, count))
    full_batches, rest = divmod(count, size)
    return (size,) * full_batches + ((rest,) if rest > 1 else ())


def require_examples(split: LabelledExamples, place: str, why: str = "") -> int:
    """Return the number of examples; raise DataError if there is none. `why`: what they are needed for."""
    if len(split.y) == 0:
        raise DataError(f"{place}: the split is empty: at least 1 example is needed{why}, but got 0")
    return len(split.y)


def batches(split: LabelledExamples, batch_size: int, *, seed: int, phase: str, epoch: int) -> Iterator[Batch]:
    """One epoch over `split`, in an order that depends on seed, phase and epoch."""
    count = require_examples(split, phase)
    order = permutation(count, seed, phase, epoch).to(split.y.device)
    sizes = batch_sizes(count, batch_size)
    for indices in order[: sum(sizes)].split(list(sizes)):
        yield Batch(split.x[indices], split.y[indices])


def endless_batches(split: LabelledExamples, batch_size: int, *, seed: int, phase: str, epoch: int) -> Iterator[Batch]:
    """Batches without end: pass after pass over `split`, each pass in another order."""
    turn = 0
    while True:
        yield from batches(split, batch_size, seed=seed, phase=f"{phase}.{turn}", epoch=epoch)
        turn += 1
