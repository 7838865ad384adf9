"""Stratified selections of examples by label: a pure function of the labels, a size and a seed.

Draws from generators of its own; the global random numbers are neither read nor moved.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nasact.errors import DataError
from nasact.training.seeds import generator


def apportion(sizes: list[int], caps: list[int], total: int) -> list[int]:
    """`total` seats in proportion to `sizes` by largest remainder, none above its cap; needs total <= sum(caps)."""
    quotas = [total * size / max(1, sum(sizes)) for size in sizes]
    seats = [min(cap, math.floor(quota)) for quota, cap in zip(quotas, caps, strict=True)]
    while (missing := total - sum(seats)) > 0:
        open_groups = [group for group, cap in enumerate(caps) if seats[group] < cap]
        # a group that a cap left far below its quota may be due several seats, one a round
        open_groups.sort(key=lambda group: (seats[group] - quotas[group], group))
        for group in open_groups[:missing]:
            seats[group] += 1
    return seats


def stratified_split(
    y: Tensor, fraction: float, seed: int, *, place: str, option: str, why: str = ""
) -> tuple[Tensor, Tensor]:
    """Indices (rest, held out) with `fraction` of the examples held out, in each class as near as whole numbers allow.

    Every class keeps at least one example in the rest; a class with a single example is never held out. Both come
    shuffled. `option` is the user's name for the fraction in messages, `why` says what those held out are needed for.
    """
    if not 0.0 < fraction < 1.0:
        raise DataError(f"{place}: `0 < {option} < 1` must hold, but got {option}={fraction!r}")
    groups = _by_class(y)
    caps = [len(group) - 1 for group in groups]
    held = round(len(y) * fraction)
    if held < 1:
        raise DataError(
            f"{place}: {option}={fraction:g} of {len(y)} examples holds out none: at least 1 is needed{why}"
        )
    if held > sum(caps):
        raise DataError(
            f"{place}: {option}={fraction:g} of {len(y)} examples in {len(groups)} classes holds out {held}, "
            f"but every class must keep at least 1: at most {sum(caps)}"
        )
    random = generator(seed, "split")
    rest_parts, held_parts = [], []
    for group, count in zip(groups, apportion([len(group) for group in groups], caps, held), strict=True):
        shuffled = group[torch.randperm(len(group), generator=random)]
        held_parts.append(shuffled[:count])
        rest_parts.append(shuffled[count:])
    return _shuffled(torch.cat(rest_parts), random), _shuffled(torch.cat(held_parts), random)


def stratified_sample(y: Tensor, count: int, seed: int, *, place: str, option: str) -> Tensor:
    """Indices of `count` examples (all, in their order, where there are no more) with the classes in proportion."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise DataError(f"{place}: {option} must be a whole number of at least 1, but got {count!r}")
    if count >= len(y):
        return torch.arange(len(y))
    random = generator(seed, "sample")
    groups = _by_class(y)
    sizes = [len(group) for group in groups]
    parts = [
        group[torch.randperm(len(group), generator=random)[:seats]]
        for group, seats in zip(groups, apportion(sizes, sizes, count), strict=True)
    ]
    return _shuffled(torch.cat(parts), random)


def _by_class(y: Tensor) -> list[Tensor]:
    """Indices of each class that occurs, in the order of the labels."""
    labels = y.cpu()
    return [torch.nonzero(labels == label).flatten() for label in torch.unique(labels)]


def _shuffled(indices: Tensor, random: torch.Generator) -> Tensor:
    return indices[torch.randperm(len(indices), generator=random)]
