"""What a study would do: its sites, one real batch, and an estimate of memory and time. Trains nothing that lasts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nasact.bilevel import Batch
from nasact.compare import site_options
from nasact.outer.data import load_study_data
from nasact.outer.monitor_checks import require_monitors_on
from nasact.outer.step_costs import (
    estimate_derivation,
    saved_bytes,
    steps_per_epoch,
    time_search_step,
    time_training_step,
)
from nasact.reserved_names import ORIGINAL
from nasact.study import Study, TrialSpec
from nasact.study_model import build_study_model
from nasact.supernet import Site, Supernet, find_sites
from nasact.supernet_setup import bank_redundancy, begin_supernet
from nasact.tasks import Data, Split


@dataclass(frozen=True, kw_only=True)
class StudyCost:
    """Seconds are measured on one batch and multiplied; `memory` is in bytes."""

    memory: int
    search_step_seconds: float
    search_steps: int
    derive_seconds: float
    trial_seconds: float
    study_seconds: float


@dataclass(frozen=True, kw_only=True)
class Preview:
    """The answer of `nasact check`. `train_loss` and `val_loss` are those of the first search step.

    `gates`: the activations that are left alone, each with its role and the reason. `unreachable`: the parts with
    activations that cannot be replaced. `audit_examples`: how many examples of the data the model ran on to find them.
    """

    study: str
    model: str
    data: str
    candidates: tuple[str, ...]
    sites: tuple[dict[str, Any], ...]
    gates: tuple[dict[str, str], ...]
    unreachable: tuple[dict[str, str], ...]
    audit_examples: int
    weights: int
    alphas: int
    train_loss: float
    val_loss: float | None
    cost: StudyCost
    plan: str
    redundancy: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The document of `nasact check --json`: the fields, with those of `cost` among them."""
        document: dict[str, Any] = {}
        for name, value in asdict(self).items():
            document |= value if name == "cost" else {name: value}
        return document


def preview(study: Study, *, data_dir: Path | None = None, download: bool = False) -> Preview:
    """Load the data, build the supernet of the representative trial, run a few real steps and count."""
    spec = study.spec
    data = load_study_data(spec, data_dir=data_dir, download=download)
    supernet = begin_supernet(spec, data)
    model = build_study_model(spec, data)
    redundancy = bank_redundancy(spec, data, supernet)
    chosen = site_options(spec, data)
    report = find_sites(model, **{**chosen, "partial": True})
    train, val = _batch(data.train, spec.search.batch_size), _batch(data.val, spec.search.batch_size)
    require_monitors_on(supernet, spec, data)
    with _recorded_inputs(supernet) as shapes:
        with torch.no_grad():
            supernet.eval()(data.train.x[:2])
        saved = saved_bytes(supernet, train)
    search_step, first = time_search_step(spec, supernet, train, val, len(data.train))
    trials, networks = _trials(study), _compared_networks(spec)
    return Preview(
        study=study.name,
        model=spec.task.model.name,
        data=f"{data.name}: {len(data.train):,} training, {len(data.val):,} validation, inputs {data.input_shape}",
        candidates=spec.search_space,
        sites=tuple(_site(supernet, site.name, site, shapes) for site in supernet.sites),
        gates=tuple(_gate(gate) for gate in report.gates),
        unreachable=tuple({"name": each.name, "reason": each.reason} for each in report.unreachable),
        audit_examples=len(chosen["example_input"]),
        weights=sum(p.numel() for p in supernet.weight_parameters()),
        alphas=sum(p.numel() for p in supernet.arch_parameters()),
        train_loss=first.train_loss,
        val_loss=first.val_loss,
        cost=_study_cost(study, supernet, model, data, saved, search_step),
        plan=f"{trials} trial{'' if trials == 1 else 's'}, then {networks} networks for the comparison",
        redundancy=redundancy,
    )


def _study_cost(
    study: Study, supernet: Supernet, model: nn.Module, data: Data, saved: int, search_step: float
) -> StudyCost:
    """`saved`: bytes that a forward pass keeps for its backward pass; `search_step`: seconds of one search step."""
    spec = study.spec
    train = _batch(data.train, spec.search.batch_size)
    retrain_steps = steps_per_epoch(len(data.train), spec.retrain.batch_size or spec.search.batch_size)
    retrain = retrain_steps * spec.retrain.epochs * time_training_step(spec, model, train)
    derive = estimate_derivation(spec, supernet, data, train, retrain / spec.retrain.epochs)
    search_steps = steps_per_epoch(len(data.train), spec.search.batch_size) * spec.search.epochs
    trial = search_steps * search_step + derive + retrain
    parameters = sum(p.numel() * p.element_size() for p in supernet.parameters())
    return StudyCost(
        memory=5 * parameters + 2 * saved,
        search_step_seconds=search_step,
        search_steps=search_steps,
        derive_seconds=derive,
        trial_seconds=trial,
        study_seconds=_trials(study) * trial + _compared_networks(spec) * retrain / (1 - spec.task.validation),
    )


def _trials(study: Study) -> int:
    return study.spec.outer.trials if study.parameters else 1


@contextmanager
def _recorded_inputs(supernet: Supernet) -> Iterator[dict[str, set[tuple[int, ...]]]]:
    """The shapes of the inputs that each site receives while the context is open."""
    shapes: dict[str, set[tuple[int, ...]]] = {name: set() for name in supernet.mixtures()}

    def record(name: str, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        shapes[name].add(tuple(arguments[0].shape))

    handles = [each.register_forward_pre_hook(partial(record, name)) for name, each in supernet.mixtures().items()]
    try:
        yield shapes
    finally:
        for handle in handles:
            handle.remove()


def _site(supernet: Supernet, name: str, site: Site, shapes: Mapping[str, set[tuple[int, ...]]]) -> dict[str, Any]:
    mixture = supernet.mixtures()[name]
    choice = mixture.bank.choose(mixture.alpha.device, next(supernet.parameters()).dtype)
    inputs = sorted({"(N, " + ", ".join(map(str, shape[1:])) + ")" for shape in shapes[name]})
    return {
        "name": name,
        "function": _function(site),
        "kind": site.kind,
        "input": " or ".join(inputs) or "not reached by the data",
        "alphas": mixture.alpha.numel(),
        "kernel": choice.kernel,
        "kernel_why": choice.why,
    }


def _gate(gate: Site) -> dict[str, str]:
    function = _function(gate)
    return {"name": gate.name, "function": function, "role": gate.role, "reason": gate.reason, "place": gate.place}


def _function(site: Site) -> str:
    return site.function if site.function != ORIGINAL else site.detail


def _batch(split: Split, size: int) -> Batch:
    return Batch(split.x[:size], split.y[:size])


def _compared_networks(spec: TrialSpec) -> int:
    """Number of networks that the comparison trains: each variant per seed, and each candidate once for best_single."""
    singles = len(spec.search_space) if "best_single" in spec.compare.baselines else 0
    return spec.compare.seeds * (1 + len(spec.compare.baselines)) + singles
