"""Successive halving: trains networks in rungs and drops the worse ones after each rung. Knows no supernet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nasact.errors import Divergence
from nasact.supernet import Genotype
from nasact.training.batches import LabelledExamples
from nasact.training.loop import FitState, fit
from nasact.training.metrics import Loss, evaluate

Score = tuple[float, float]
"""Mean validation accuracy, then minus the mean validation loss: larger is better."""
DIVERGED: Score = (-1.0, -math.inf)


@dataclass(kw_only=True)
class Contender:
    """A genotype, its networks in training (one per seed), and their score after the last rung."""

    genotype: Genotype
    states: list[FitState]
    score: Score = DIVERGED


MAX_RUNGS = 3
"""With 3 rungs the first one trains for at least a quarter of all epochs. After less training, networks differ only in
how fast they begin to learn, and those with linear activations begin fastest."""


def rungs(contenders: int, epochs: int) -> list[tuple[int, int]]:
    """(number of contenders, epochs that each has had at the end) of each rung; the last rung has two contenders.

    The epochs double from rung to rung, and the contenders are reduced by a constant factor, 2 for up to 8 contenders.
    8 contenders, 8 epochs: (8, 2), (4, 4), (2, 8); 18 contenders: (18, 2), (6, 4), (2, 8).
    """
    count = min(MAX_RUNGS, max(1, math.ceil(math.log2(max(contenders, 1)))))
    reduction = (2 / max(contenders, 2)) ** (1 / max(1, count - 1))
    # - 1e-9: 8 * (2 / 8) ** (1 / 2) may be 4 plus a rounding error
    sizes = [math.ceil(contenders * reduction**rung - 1e-9) for rung in range(count)]
    return [(size, max(1, epochs // 2 ** (count - 1 - rung))) for rung, size in enumerate(sizes)]


def successive_halving(
    genotypes: Sequence[Genotype],
    begin: Callable[[Genotype], list[FitState]],
    train: LabelledExamples,
    val: LabelledExamples,
    *,
    epochs: int,
    batch_size: int,
    loss: Loss,
) -> tuple[Contender, Contender, int]:
    """The best contender on `val` after `epochs` on `train`, the first genotype's contender, and the number of epochs.

    Jamieson and Talwalkar 2016 (arXiv:1502.07943), with the budgets of `rungs`. The first genotype is the reference and
    takes part in every rung. A contender that diverges is dropped; raises Divergence if none is left. At equal accuracy
    the lower loss wins, then a contender other than the reference.
    """
    reference, *others = (Contender(genotype=genotype, states=begin(genotype)) for genotype in genotypes)
    epochs_trained = 0
    for size, budget in rungs(len(others), epochs):
        others = others[:size]
        for contender in (reference, *others):
            epochs_trained += sum(budget - state.epoch for state in contender.states)
            contender.score = _train_and_score(contender, train, val, budget, batch_size, loss)
        healthy = [contender for contender in others if contender.score != DIVERGED]
        others = sorted(healthy, key=lambda contender: contender.score, reverse=True)
    best = max((*others, reference), key=lambda contender: contender.score)
    if best.score == DIVERGED:
        raise Divergence(f"derive: none of {len(genotypes)} networks stayed finite for {epochs} epochs of training")
    return best, reference, epochs_trained


def _train_and_score(
    contender: Contender, train: LabelledExamples, val: LabelledExamples, budget: int, batch_size: int, loss: Loss
) -> Score:
    evaluations = []
    for state in contender.states:
        try:
            for _ in fit(state, train, epochs=budget, batch_size=batch_size, loss=loss, phase="derive"):
                pass
            with state.stream:
                evaluations.append(evaluate(state.model, val, loss=loss, place="derive"))
        except Divergence:
            return DIVERGED
    accuracy = sum(evaluation.accuracy for evaluation in evaluations) / len(evaluations)
    return accuracy, -sum(evaluation.loss for evaluation in evaluations) / len(evaluations)
