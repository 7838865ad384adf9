"""Successive halving: networks trained side by side, the worse half left behind at each rung. Knows no supernet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nasact.errors import Divergence
from nasact.supernet import Genotype
from nasact.training.batches import Labelled
from nasact.training.loop import FitState, fit
from nasact.training.metrics import Loss, evaluate

Score = tuple[float, float]
"""Mean validation accuracy, then the mean loss with its sign turned: larger is better."""
DIVERGED: Score = (-1.0, -math.inf)


@dataclass(kw_only=True)
class Contender:
    """A genotype, its networks in training (one a seed), and how they did at the last rung."""

    genotype: Genotype
    states: list[FitState]
    score: Score = DIVERGED


MOST_RUNGS = 3
"""The first rung trains for at least a quarter of all epochs: networks are told apart by less only by how fast they
begin, and those without a bend begin fastest."""


def rungs(contenders: int, epochs: int) -> list[tuple[int, int]]:
    """(how many take part, epochs they have had by the end) of each rung; two are left in the last, at `epochs`.

    The budget doubles from rung to rung, and the field falls by a constant factor: by two where there are up to 8.
    8 contenders, 8 epochs: (8, 2), (4, 4), (2, 8); 18 contenders: (18, 2), (6, 4), (2, 8).
    """
    count = min(MOST_RUNGS, max(1, math.ceil(math.log2(max(contenders, 1)))))
    left = (2 / max(contenders, 2)) ** (1 / max(1, count - 1))
    # 8 * (2 / 8) ** (1 / 2) is 4 and may be a rounding error more
    return [
        (math.ceil(contenders * left**rung - 1e-9), max(1, epochs // 2 ** (count - 1 - rung))) for rung in range(count)
    ]


def successive_halving(
    genotypes: Sequence[Genotype],
    begin: Callable[[Genotype], list[FitState]],
    train: Labelled,
    val: Labelled,
    *,
    epochs: int,
    batch_size: int,
    loss: Loss,
) -> tuple[Contender, Contender, int]:
    """The best on `val` after `epochs` on `train`; the first genotype, which takes part in every rung; epochs in all.

    Jamieson and Talwalkar 2016 (arXiv:1502.07943), with the budgets of `rungs`. A network that diverges
    is out; Divergence if nothing is left. At equal accuracy the lower loss wins, then any other than the first.
    """
    champion, *others = (Contender(genotype=genotype, states=begin(genotype)) for genotype in genotypes)
    trained = 0
    for size, budget in rungs(len(others), epochs):
        others = others[:size]
        for contender in (champion, *others):
            trained += sum(budget - state.epoch for state in contender.states)
            contender.score = _trained(contender, train, val, budget, batch_size, loss)
        others = sorted((one for one in others if one.score != DIVERGED), key=lambda one: one.score, reverse=True)
    best = max((*others, champion), key=lambda one: one.score)
    if best.score == DIVERGED:
        raise Divergence(f"derive: none of {len(genotypes)} networks stayed finite for {epochs} epochs of training")
    return best, champion, trained


def _trained(contender: Contender, train: Labelled, val: Labelled, budget: int, batch_size: int, loss: Loss) -> Score:
    found = []
    for state in contender.states:
        try:
            for _ in fit(state, train, epochs=budget, batch_size=batch_size, loss=loss, phase="derive"):
                pass
            with state.stream:
                found.append(evaluate(state.model, val, loss=loss, place="derive"))
        except Divergence:
            return DIVERGED
    return sum(one.accuracy for one in found) / len(found), -sum(one.loss for one in found) / len(found)
