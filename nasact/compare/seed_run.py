"""One trained network of a comparison: the unit of work that `run_cache` keeps and that worker processes share."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from typing import Literal

import torch

from nasact.errors import Divergence
from nasact.study import TrialSpec
from nasact.supernet import Genotype
from nasact.tasks import Data, Split
from nasact.training.metrics import evaluate
from nasact.trial import begin_retrain, retrain_epochs

Purpose = Literal["test", "select"]


@dataclass(frozen=True, kw_only=True)
class SeedRun:
    """What one trained network measured."""

    accuracy: float
    diverged: str | None
    train_loss: float | None
    parameters: int
    seconds: float
    weights_sha256: str | None = None


@dataclass(frozen=True)
class Job:
    """One network to train: on train + validation data for the test set, on training data to choose among candidates.

    `keep` asks for its weights.
    """

    genotype: Genotype
    seed: int
    purpose: Purpose
    label: str
    keep: bool = False


def splits(data: Data, purpose: Purpose) -> tuple[Split, Split]:
    """What to train on and what to measure on; choosing among candidates never sees the test data."""
    return (data.train_and_val(), data.test.open()) if purpose == "test" else (data.train, data.val)


def train_seed_run(
    spec: TrialSpec, data: Data, job: Job, train: Split, held_out: Split
) -> tuple[SeedRun, bytes | None]:
    """Train a network from scratch with the study's budget; the run and, if it is to be kept, its state as a file."""
    started = time.perf_counter()
    # no name of a variant goes into the seed: same weights, order and masks for all of them
    state = begin_retrain(spec, data, job.genotype, "compare", job.seed)
    accuracy, train_loss, diverged, weights = 0.0, None, None, None
    try:
        for epoch in retrain_epochs(spec, state, train, "compare"):
            train_loss = epoch.metrics["train_loss"]
        with state.stream:
            accuracy = evaluate(state.model, held_out, place=f"compare seed {job.seed}, after training").accuracy
        if job.keep:
            buffer = io.BytesIO()
            torch.save(state.model.state_dict(), buffer)
            weights = buffer.getvalue()
    except Divergence as error:
        diverged = str(error)
    run = SeedRun(
        accuracy=accuracy,
        diverged=diverged,
        train_loss=train_loss,
        parameters=sum(parameter.numel() for parameter in state.model.parameters()),
        seconds=time.perf_counter() - started,
    )
    return run, weights
