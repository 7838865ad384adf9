"""Stratified selections of examples: pure functions of the labels, a size and a seed.

Uses its own random generators; the global random state is neither read nor changed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nasact.errors import DataError
from nasact.training.seeds import generator


def apportion(sizes: list[int], caps: list[int], total: int) -> list[int]:
    """Distribute `total` seats among groups in proportion to `sizes`, by the method of the largest remainder.

    No group receives more than its cap; requires total <= sum(caps).
    """
    quotas = [total * size / max(1, sum(sizes)) for size in sizes]
    seats = [min(cap, math.floor(quota)) for quota, cap in zip(quotas, caps, strict=True)]
    while (missing := total - sum(seats)) > 0:
        open_groups = [group for group, cap in enumerate(caps) if seats[group] < cap]
        # Caps can leave more seats over than there are open groups. Each round then gives one seat to every open group.
        open_groups.sort(key=lambda group: (seats[group] - quotas[group], group))
        for group in open_groups[:missing]:
            seats[group] += 1
    return seats


def stratified_split(
    y: Tensor, fraction: float, seed: int, *, place: str, option: str, why: str = ""
) -> tuple[Tensor, Tensor]:
    """Split the indices of `y` into (rest, held out), with `fraction` of each class, rounded, held out.

    Every class keeps at least one example in the rest. Both results are shuffled. For messages: `option` is the user's
    name of the fraction, `why` explains what the held-out examples are needed for.
    """
    if not 0.0 < fraction < 1.0:
        raise DataError(f"{place}: `0 < {option} < 1` must hold, but got {option}={fraction!r}")
    groups = _indices_by_class(y)
    caps = [len(group) - 1 for group in groups]
    held_out = round(len(y) * fraction)
    if held_out < 1:
        raise DataError(
            f"{place}: {option}={fraction:g} of {len(y)} examples holds out none: at least 1 is needed{why}"
        )
    if held_out > sum(caps):
        raise DataError(
            f"{place}: {option}={fraction:g} of {len(y)} examples in {len(groups)} classes holds out {held_out}, "
            f"but every class must keep at least 1: at most {sum(caps)}"
        )
    random = generator(seed, "split")
    rest_parts, held_parts = [], []
    for group, count in zip(groups, apportion([len(group) for group in groups], caps, held_out), strict=True):
        shuffled = group[torch.randperm(len(group), generator=random)]
        held_parts.append(shuffled[:count])
        rest_parts.append(shuffled[count:])
    return _shuffled(torch.cat(rest_parts), random), _shuffled(torch.cat(held_parts), random)


def stratified_sample(y: Tensor, count: int, seed: int, *, place: str, option: str) -> Tensor:
    """The shuffled indices of `count` examples with the classes in proportion; all, in order, if y has no more."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise DataError(f"{place}: {option} must be a whole number of at least 1, but got {count!r}")
    if count >= len(y):
        return torch.arange(len(y))
    random = generator(seed, "sample")
    groups = _indices_by_class(y)
    sizes = [len(group) for group in groups]
    parts = [
        group[torch.randperm(len(group), generator=random)[:seats]]
        for group, seats in zip(groups, apportion(sizes, sizes, count), strict=True)
    ]
    return _shuffled(torch.cat(parts), random)


def _indices_by_class(y: Tensor) -> list[Tensor]:
    """The indices of each class that occurs, in the order of the labels."""
    labels = y.cpu()
    return [torch.nonzero(labels == label).flatten() for label in torch.unique(labels)]


def _shuffled(indices: Tensor, random: torch.Generator) -> Tensor:
    return indices[torch.randperm(len(indices), generator=random)]
