"""What steps of a study cost in seconds and bytes, measured on one real batch. Trains nothing that lasts."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasact import bilevel, derivation
from nasact.bilevel import Batch, StepReport
from nasact.study import TrialSpec
from nasact.supernet import Supernet
from nasact.tasks import Data
from nasact.training.optimisers import build_optimiser
from nasact.training.schedule import build_schedule
from nasact.training.schedule_checks import require_long_enough

STEPS = 3
"""Steps over which a time is averaged, after a first step that is not counted."""


def saved_bytes(supernet: Supernet, batch: Batch) -> int:
    """Bytes that one forward pass keeps for its backward pass, each storage counted once."""
    sizes: dict[int, int] = {}

    def measure(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    supernet.train()
    with torch.autograd.graph.saved_tensors_hooks(measure, lambda tensor: tensor):
        F.cross_entropy(supernet(batch.x), batch.y)
    return sum(sizes.values())


def time_search_step(
    spec: TrialSpec, supernet: Supernet, train: Batch, val: Batch, examples: int
) -> tuple[float, StepReport]:
    """Seconds of one step of the study's strategy, and the report of the first step.

    `examples`: number of training examples. StudyError if the search is too short for its schedules; the strategy's
    check that a step moves alpha runs too.
    """
    strategy = bilevel.build(spec.search.strategy.name, spec.search.strategy.options)
    optimiser = build_optimiser(supernet.weight_parameters(), spec.search.optimiser)
    state = strategy.init(supernet, optimiser, F.cross_entropy)
    bilevel.regularise(strategy, state, bilevel.build_regularisers(spec.search.regularisers))
    require_long_enough(
        strategy,
        state.regularisers,
        build_schedule(spec.search.temperature),
        examples=examples,
        batch_size=spec.search.batch_size,
        epochs=spec.search.epochs,
        warmup=spec.search.warmup,
    )
    bilevel.check_search_moves(strategy, state, train, val)
    first = strategy.step(state, train, val)
    started = time.perf_counter()
    for _ in range(STEPS):
        strategy.step(state, train, val)
    return (time.perf_counter() - started) / STEPS, first


def time_training_step(spec: TrialSpec, model: nn.Module, batch: Batch) -> float:
    """Seconds of one step of ordinary training with the optimiser of the retraining. Moves the model's weights."""
    optimiser = build_optimiser(list(model.parameters()), spec.retrain.optimiser or spec.search.optimiser)
    model.train()
    started = 0.0
    for step in range(STEPS + 1):
        if step == 1:
            started = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(model(batch.x), batch.y).backward()
        optimiser.step()
    return (time.perf_counter() - started) / STEPS


def estimate_derivation(spec: TrialSpec, supernet: Supernet, data: Data, batch: Batch, network_epoch: float) -> float:
    """Upper bound of the seconds of the derivation; `network_epoch`: seconds of one retraining epoch.

    A training step of the supernet is measured; a validation is estimated as a third of the time of its training
    steps. Moves the supernet's weights, so nothing can be measured on it afterwards.
    """
    sites = [(mixture.alpha[..., 0].numel(), mixture.alpha.shape[-1]) for mixture in supernet.mixtures().values()]
    cost = derivation.build(spec.derive.method.name, spec.derive.method.options).estimate_cost(sites)
    seconds = cost.network_epochs * network_epoch
    if cost.supernet_epochs or cost.mixture_epochs or cost.validations:
        step = time_training_step(spec, supernet, batch)
        train, val = (steps_per_epoch(len(split), spec.search.batch_size) for split in (data.train, data.val))
        seconds += step * (cost.supernet_epochs * train + (cost.mixture_epochs + cost.validations / 3) * val)
    return seconds


def steps_per_epoch(examples: int, batch_size: int) -> int:
    return max(1, -(-examples // batch_size))
