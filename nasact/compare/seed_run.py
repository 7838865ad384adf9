"""One trained network of a comparison: the unit of work that worker processes share and `run_cache` stores."""

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
"""`test`: train on train + validation data, measure on the test set. `select`: train on training data, measure on
validation data, to choose among the candidates."""


@dataclass(frozen=True, kw_only=True)
class SeedRun:
    """The measurements of one trained network. `diverged`: why training diverged (then `accuracy` is 0), or None."""

    accuracy: float
    diverged: str | None
    train_loss: float | None
    parameters: int
    seconds: float
    weights_sha256: str | None = None
    """Digest of the stored weights; None if they were not stored."""


@dataclass(frozen=True)
class TrainingJob:
    """One network to train. `label` is shown as progress; with `keep_weights` the trained weights are returned too."""

    genotype: Genotype
    seed: int
    purpose: Purpose
    label: str
    keep_weights: bool = False


def splits(data: Data, purpose: Purpose) -> tuple[Split, Split]:
    """The data to train on and the data to measure on."""
    return (data.train_and_val(), data.test.open()) if purpose == "test" else (data.train, data.val)


def train_seed_run(
    spec: TrialSpec, data: Data, job: TrainingJob, train: Split, held_out: Split
) -> tuple[SeedRun, bytes | None]:
    """Train a network from scratch with the study's budget; the run, and the state dict as a file if it is kept."""
    started = time.perf_counter()
    # The variant's name is no part of the seed: all variants have the same initial weights, data order and dropout.
    state = begin_retrain(spec, data, job.genotype, "compare", job.seed)
    accuracy, train_loss, diverged, weights = 0.0, None, None, None
    try:
        for epoch in retrain_epochs(spec, state, train, "compare"):
            train_loss = epoch.metrics["train_loss"]
        with state.stream:
            accuracy = evaluate(state.model, held_out, place=f"compare seed {job.seed}, after training").accuracy
        if job.keep_weights:
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
