"""The two training loops: `fit` for a plain network, `search` for a supernet (network weights and mixture weights).

Each has a state that can be saved, and a generator that advances the state by one epoch at a time. Must not know
studies, trials or trackers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nasact.bilevel import Regulariser, SearchState, Strategy, check_search_moves, regularise, weight_step
from nasact.errors import Divergence
from nasact.supernet import Supernet
from nasact.training.batches import LabelledExamples, batches, endless_batches, require_examples
from nasact.training.metrics import Direction, Loss, evaluate, require_finite
from nasact.training.optimisers import OptimiserOptions, build_optimiser
from nasact.training.schedule import Constant, Schedule
from nasact.training.schedule_checks import require_long_enough
from nasact.training.seeds import RandomStream, derive_seed

WeightsOverTime = dict[str, list[list[float]]]
"""By site: one row of mean mixture weights (K) before the first epoch and after every epoch."""

SEARCH_METRICS: Mapping[str, Direction | None] = {
    "val_accuracy": "high",
    "val_loss": "low",
    "train_loss": "low",
    "entropy": "low",
    "temperature": None,
    "seconds": None,
}
"""The metrics of every epoch of `search`, and whether low or high values are better; None: neither."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """The metrics of one finished epoch; epochs count from 1."""

    epoch: int
    metrics: dict[str, float]


@dataclass(kw_only=True)
class FitState:
    """The state of a plain network in training, after `epoch` epochs."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    stream: RandomStream
    seed: int
    epoch: int = 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "rng": self.stream.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.stream.load_state_dict(state["rng"])


def begin_fit(model: nn.Module, optimiser: OptimiserOptions, *, seed: int) -> FitState:
    """The state before the first epoch. `seed` determines the order of the data and all random numbers."""
    return FitState(
        model=model,
        optimiser=build_optimiser(model.parameters(), optimiser),
        stream=RandomStream(derive_seed(seed, "fit")),
        seed=seed,
    )


def fit(
    state: FitState,
    train: LabelledExamples,
    *,
    epochs: int,
    batch_size: int,
    loss: Loss = cross_entropy,
    phase: str = "retrain",
) -> Iterator[Epoch]:
    """Train up to epoch `epochs`, and yield after each epoch; there the caller may save `state` or stop."""
    require_examples(train, f"{phase}: training data")
    while state.epoch < epochs:
        started = time.perf_counter()
        with state.stream:
            train_loss = _fit_epoch(state, train, batch_size, loss, phase)
        state.epoch += 1
        require_finite(train_loss, _epoch_label(phase, state.epoch, "training loss"))
        seconds = time.perf_counter() - started
        yield Epoch(epoch=state.epoch, metrics={"train_loss": train_loss, "seconds": seconds})


def _fit_epoch(state: FitState, train: LabelledExamples, batch_size: int, loss: Loss, phase: str) -> float:
    state.model.train()
    total = torch.zeros((), dtype=torch.float64, device=train.y.device)
    count = 0
    for batch in batches(train, batch_size, seed=state.seed, phase=phase, epoch=state.epoch):
        state.optimiser.zero_grad(set_to_none=True)
        value = loss(state.model(batch.x), batch.y)
        value.backward()
        state.optimiser.step()
        total += value.detach().double() * len(batch.y)
        count += len(batch.y)
    return total.item() / max(count, 1)


@dataclass(kw_only=True)
class SearchRun:
    """The state of a search, after `epoch` epochs.

    In the first `warmup` epochs alpha is not updated and the temperature stays at its start. A network learns the
    linear part of its task first; an alpha that is updated from the start would choose identity because of that.

    With `scale_alpha_lr` the learning rate of alpha is proportional to the temperature T, if the mixture weights are a
    function of alpha / T. Adam's steps of alpha have the same size whatever the gradient. Without scaling,
    the steps of alpha / T would grow as T falls, by a factor of 20 from T = 1 to 0.05, and in the end the noise of
    single batches would decide.
    """

    supernet: Supernet
    strategy: Strategy
    state: SearchState
    stream: RandomStream
    seed: int
    schedule: Schedule = field(default_factory=Constant)
    warmup: int = 0
    scale_alpha_lr: bool = True
    epoch: int = 0
    weights_over_time: WeightsOverTime = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "search": self.state.state_dict(),
            "rng": self.stream.state_dict(),
            "weights_over_time": self.weights_over_time,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.state.load_state_dict(state["search"])
        self.stream.load_state_dict(state["rng"])
        self.weights_over_time = state["weights_over_time"]


def begin_search(
    supernet: Supernet,
    strategy: Strategy,
    optimiser: OptimiserOptions,
    *,
    seed: int,
    schedule: Schedule | None = None,
    warmup: int = 0,
    scale_alpha_lr: bool = True,
    loss: Loss = cross_entropy,
    regularisers: Sequence[Regulariser] = (),
) -> SearchRun:
    """The state before the first epoch of a search. Raises StudyError if a regulariser has no effect in this search."""
    with RandomStream(derive_seed(seed, "init")):  # `seed` determines also what a strategy draws in `init`
        state = strategy.init(supernet, build_optimiser(supernet.weight_parameters(), optimiser), loss)
    run = SearchRun(
        supernet=supernet,
        strategy=strategy,
        state=state,
        stream=RandomStream(derive_seed(seed, "search")),
        seed=seed,
        schedule=schedule or Constant(),
        warmup=warmup,
        scale_alpha_lr=scale_alpha_lr,
    )
    regularise(strategy, run.state, regularisers)
    with run.stream:
        _record_weights(run)
    return run


def search(
    run: SearchRun, train: LabelledExamples, val: LabelledExamples, *, epochs: int, batch_size: int
) -> Iterator[Epoch]:
    """Search up to epoch `epochs`: train w on `train` and alpha on `val`, and yield after each epoch.

    Before the first step `check_search_moves` checks that a step changes alpha, on a copy of all that a step changes.
    """
    require_examples(train, "search: training data")
    require_examples(val, "search: validation data", ", to train the mixture weights on")
    require_long_enough(
        run.strategy,
        run.state.regularisers,
        run.schedule,
        examples=len(train.y),
        batch_size=batch_size,
        epochs=epochs,
        warmup=run.warmup,
    )
    while run.epoch < epochs:
        started = time.perf_counter()
        temperature = run.schedule.temperature(max(0, run.epoch - run.warmup), epochs - run.warmup)
        with run.stream:
            run.supernet.set_temperature(temperature)
            run.state.alpha_lr_scale = alpha_lr_scale_at(run, temperature, epochs)
            train_loss = _search_epoch(run, train, val, epochs, batch_size)
            run.epoch += 1
            place = _epoch_label("search", run.epoch, "validation loss")
            validation = evaluate(run.supernet, val, loss=run.state.loss, place=place)
            entropy = run.supernet.entropy()
            _record_weights(run)
        metrics = {
            "train_loss": train_loss,
            "val_loss": validation.loss,
            "val_accuracy": validation.accuracy,
            "entropy": sum(entropy.values()) / max(len(entropy), 1),
            "temperature": temperature,
            "seconds": time.perf_counter() - started,
        }
        yield Epoch(epoch=run.epoch, metrics=metrics)


def alpha_lr_scale_at(run: SearchRun, temperature: float, epochs: int) -> float:
    """The factor of alpha's learning rate that gives alpha / T steps of the same size as in the first epoch."""
    of_alpha_over_t = all(mixture.normaliser.function_of_alpha_over_t for mixture in run.supernet.mixtures().values())
    if not run.scale_alpha_lr or not of_alpha_over_t:
        return 1.0
    return temperature / run.schedule.temperature(0, epochs - run.warmup)


def _search_epoch(
    run: SearchRun, train: LabelledExamples, val: LabelledExamples, epochs: int, batch_size: int
) -> float:
    """One epoch over the training data; returns the mean training loss."""
    run.supernet.train()
    val_batches = endless_batches(val, batch_size, seed=run.seed, phase="search.val", epoch=run.epoch)
    total, count = 0.0, 0
    for batch in batches(train, batch_size, seed=run.seed, phase="search.train", epoch=run.epoch):
        val_batch = next(val_batches)
        epochs_done = run.epoch - run.warmup + count / len(train.y)
        run.state.progress = max(0.0, epochs_done / (epochs - run.warmup))
        try:
            if run.state.step == 0:
                check_search_moves(run.strategy, run.state, batch, val_batch)
            in_warmup = run.epoch < run.warmup
            report = weight_step(run.state, batch) if in_warmup else run.strategy.step(run.state, batch, val_batch)
        except Divergence as error:
            raise Divergence(f"search epoch {run.epoch + 1}, {error}") from error
        label = _epoch_label("search", run.epoch + 1, "training loss")
        total += require_finite(report.train_loss, label) * len(batch.y)
        count += len(batch.y)
    return total / max(count, 1)


def _record_weights(run: SearchRun) -> None:
    """Append the mean mixture weights of each site to `weights_over_time`."""
    for site, weights in run.supernet.weights().items():
        mean: Tensor = weights.detach().double().reshape(-1, weights.shape[-1]).mean(dim=0)
        run.weights_over_time.setdefault(site, []).append(mean.tolist())


def _epoch_label(phase: str, epoch: int, what: str) -> str:
    return f"{phase} epoch {epoch}, {what}"
