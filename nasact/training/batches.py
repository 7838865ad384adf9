"""Batches of data that are already in memory: indexing, no workers, nothing to checkpoint inside an epoch.

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


class Labelled(Protocol):
    """Examples with their labels: `tasks.Split`, or anything shaped like it."""

    @property
    def x(self) -> Tensor: ...

    @property
    def y(self) -> Tensor: ...


def permutation(count: int, seed: int, *names: object) -> Tensor:
    """A random order of `count` examples for the purpose called `names`."""
    return torch.randperm(count, generator=generator(seed, "order", *names))


def batch_sizes(count: int, batch_size: int) -> tuple[int, ...]:
    """Sizes of the batches of one epoch; a left-over batch of a single example is dropped.

    BatchNorm has no variance to divide by in a batch of one.
    """
    size = max(1, min(batch_size, count))
    whole, rest = divmod(count, size)
    return (size,) * whole + ((rest,) if rest > 1 else ())


def require_examples(split: Labelled, place: str, why: str = "") -> int:
    """The number of examples; DataError where there is none, with what they are needed for."""
    if len(split.y) == 0:
        raise DataError(f"{place}: the split is empty: at least 1 example is needed{why}, but got 0")
    return len(split.y)


def batches(split: Labelled, batch_size: int, *, seed: int, phase: str, epoch: int) -> Iterator[Batch]:
    """One epoch over `split` in an order of its own."""
    count = require_examples(split, phase)
    order = permutation(count, seed, phase, epoch).to(split.y.device)
    sizes = batch_sizes(count, batch_size)
    for chosen in order[: sum(sizes)].split(list(sizes)):
        yield Batch(split.x[chosen], split.y[chosen])


def endless_batches(split: Labelled, batch_size: int, *, seed: int, phase: str, epoch: int) -> Iterator[Batch]:
    """Batches without end: epoch after epoch over `split`, each in an order of its own."""
    turn = 0
    while True:
        yield from batches(split, batch_size, seed=seed, phase=f"{phase}.{turn}", epoch=epoch)
        turn += 1
