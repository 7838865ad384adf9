"""What a study would do: its sites, one real batch, and an estimate of memory and time. Trains nothing that lasts."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasact import bilevel, derivation, monitors
from nasact.bilevel import Batch
from nasact.outer.data import load_study_data
from nasact.study import Study, TrialSpec
from nasact.study_model import build_study_model
from nasact.supernet import Site, Supernet, find_sites, site_shapes
from nasact.supernet_setup import bank_redundancy
from nasact.tasks import Data, Split
from nasact.trial import begin_supernet

STEPS = 3


@dataclass(frozen=True, kw_only=True)
class Preview:
    """Seconds are measured on one batch and multiplied; `memory` is in bytes."""

    study: str
    model: str
    data: str
    candidates: tuple[str, ...]
    sites: tuple[dict[str, Any], ...]
    unreachable: tuple[dict[str, str], ...]
    weights: int
    alphas: int
    train_loss: float
    val_loss: float | None
    memory: int
    search_step_seconds: float
    search_steps: int
    derive_seconds: float
    trial_seconds: float
    study_seconds: float
    plan: str
    redundancy: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def preview(study: Study, *, data_dir: Path | None = None, download: bool = False) -> Preview:
    """Load the data, build the supernet of the representative trial, run a few real steps and count."""
    spec = study.spec
    data = load_study_data(spec, data_dir=data_dir, download=download)
    supernet = begin_supernet(spec, data)
    model = build_study_model(spec, data)
    report = find_sites(model, include=spec.sites.include, exclude=spec.sites.exclude)
    shapes = site_shapes(model, data.train.x[:2])
    train, val = _batch(data.train, spec.search.batch_size), _batch(data.val, spec.search.batch_size)
    require_monitors(spec, supernet, data)
    saved = _saved_bytes(supernet, train)
    step, losses = _time_search(spec, supernet, train, val, len(data.train))
    plain = _time_plain(spec, model, train)
    steps = _steps(len(data.train), spec.search.batch_size)
    retrain = _steps(len(data.train), spec.retrain.batch_size or spec.search.batch_size) * spec.retrain.epochs * plain
    derive = _derive_seconds(spec, supernet, data, train, retrain / spec.retrain.epochs)
    trial = steps * spec.search.epochs * step + derive + retrain
    trials = spec.outer.trials if study.parameters else 1
    networks = _networks(spec)
    parameters = sum(p.numel() * p.element_size() for p in supernet.parameters())
    return Preview(
        study=study.name,
        model=spec.task.model.name,
        data=f"{data.name}: {len(data.train):,} training, {len(data.val):,} validation, inputs {data.input_shape}",
        candidates=spec.search_space,
        sites=tuple(_site(supernet, site.name, site, shapes) for site in supernet.sites),
        unreachable=tuple({"name": each.name, "reason": each.reason} for each in report.unreachable),
        weights=sum(p.numel() for p in supernet.weight_parameters()),
        alphas=sum(p.numel() for p in supernet.arch_parameters()),
        train_loss=losses[0],
        val_loss=losses[1],
        memory=5 * parameters + 2 * saved,
        search_step_seconds=step,
        search_steps=steps * spec.search.epochs,
        derive_seconds=derive,
        trial_seconds=trial,
        study_seconds=trials * trial + networks * retrain / (1 - spec.task.validation),
        plan=f"{trials} trial{'' if trials == 1 else 's'}, then {networks} networks for the comparison",
        redundancy=bank_redundancy(spec, data),
    )


def require_monitors(spec: TrialSpec, supernet: Supernet, data: Data) -> None:
    """StudyError, with the reason, where a monitor cannot measure this supernet: asked before the first trial."""
    monitors.require_site(spec.outer.prune_by, (site.name for site in supernet.sites))
    suite = monitors.MonitorSuite(monitors=monitors.build_monitors(spec.search.monitors), top_k=spec.derive.top_k)
    suite.precheck(supernet, F.cross_entropy, data.val, spec.seed)


def _site(supernet: Supernet, name: str, site: Site, shapes: dict[str, list[tuple[int, ...]]]) -> dict[str, Any]:
    mixture = supernet.mixtures()[name]
    choice = mixture.bank.choose(mixture.alpha.device, next(supernet.parameters()).dtype)
    inputs = sorted({"(N, " + ", ".join(map(str, shape[1:])) + ")" for shape in shapes[name]})
    return {
        "name": name,
        "function": site.function if site.function != "original" else site.detail,
        "kind": site.kind,
        "input": " or ".join(inputs) or "not reached by the data",
        "alphas": mixture.alpha.numel(),
        "kernel": choice.kernel,
        "kernel_why": choice.why,
    }


def _batch(split: Split, size: int) -> Batch:
    return Batch(split.x[:size], split.y[:size])


def _saved_bytes(supernet: Supernet, batch: Batch) -> int:
    """Bytes that one training pass keeps for its backward pass, each storage once."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    supernet.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        F.cross_entropy(supernet(batch.x), batch.y)
    return sum(kept.values())


def _time_search(
    spec: TrialSpec, supernet: Supernet, train: Batch, val: Batch, examples: int
) -> tuple[float, tuple[float, float | None]]:
    from nasact.training.optimisers import build_optimiser
    from nasact.training.schedule import build_schedule
    from nasact.training.schedule_checks import require_long_enough

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
    return (time.perf_counter() - started) / STEPS, (first.train_loss, first.val_loss)


def _derive_seconds(spec: TrialSpec, supernet: Supernet, data: Data, batch: Batch, network_epoch: float) -> float:
    """At most, for the derivation: an epoch of the supernet is measured, a validation taken for a third of its steps.

    Moves the supernet's weights: to be asked last.
    """
    sites = [(mixture.alpha[..., 0].numel(), mixture.alpha.shape[-1]) for mixture in supernet.mixtures().values()]
    cost = derivation.build(spec.derive.method.name, spec.derive.method.options).estimate_cost(sites)
    seconds = cost.network_epochs * network_epoch
    if cost.supernet_epochs or cost.mixture_epochs or cost.validations:
        step = _time_plain(spec, supernet, batch)
        train, val = (_steps(len(split), spec.search.batch_size) for split in (data.train, data.val))
        seconds += step * (cost.supernet_epochs * train + (cost.mixture_epochs + cost.validations / 3) * val)
    return seconds


def _time_plain(spec: TrialSpec, model: nn.Module, batch: Batch) -> float:
    from nasact.training.optimisers import build_optimiser

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


def _steps(examples: int, batch_size: int) -> int:
    return max(1, -(-examples // batch_size))


def _networks(spec: TrialSpec) -> int:
    """Networks that the comparison trains: a row a variant, a column a seed, and one a candidate to find the best."""
    singles = len(spec.search_space) if "best_single" in spec.compare.baselines else 0
    return spec.compare.seeds * (1 + len(spec.compare.baselines)) + singles
