"""Comparison after the outer loop: the derived network against honest baselines, at equal budget, over several seeds.

The only room that opens the test set. Each network is trained on train + validation and measured once; the numbers are
kept as one small file each, so that a comparison that was interrupted continues. Judging them is `report`'s business.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from nasact.errors import Divergence
from nasact.mixture import ORIGINAL
from nasact.study import TrialSpec
from nasact.supernet import Genotype, find_sites
from nasact.tasks import Data, Split, build_model
from nasact.training.files import write_atomically, write_json
from nasact.training.metrics import evaluate
from nasact.training.seeds import generator
from nasact.trial import begin_retrain, data_fingerprint, retrain_epochs

logger = logging.getLogger(__name__)

SCHEMA = 1
Progress = Callable[[int, int, str], None]
Purpose = Literal["test", "select"]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of the comparison: the same seeds, in the same order, as every other row.

    `genotypes` has one genotype a seed (they differ for `random_mixture` only); `genotype` is the first of them. A run
    that diverged answers nothing and counts as accuracy 0; `diverged` lists the places of such runs.
    """

    name: str
    label: str
    genotype: Genotype
    test_accuracies: list[float]
    val_accuracy: float | None = None
    genotypes: list[Genotype] = field(default_factory=list)
    diverged: list[int] = field(default_factory=list)
    parameters: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        plain = {name: value for name, value in vars(self).items() if not name.startswith("genotype")}
        # one genotype for all seeds is written once
        genotypes = self.genotypes if any(gene != self.genotype for gene in self.genotypes) else [self.genotype]
        return {**plain, "genotypes": [genotype.to_dict() for genotype in genotypes]}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Variant:
        genotypes = [Genotype.from_dict(genotype) for genotype in document["genotypes"]]
        if len(genotypes) == 1:
            genotypes *= len(document["test_accuracies"])
        return cls(**{**document, "genotype": genotypes[0], "genotypes": genotypes})


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Test accuracies (fractions) of every variant over the same seeds.

    `candidates` holds the validation accuracy of each single candidate, from which `best_single` was chosen (None: it
    diverged; `best_single` is empty where it was not asked for). `model_path` is the file with the weights of the
    derived network of the first seed.
    """

    variants: dict[str, Variant]
    best_single: str
    candidates: dict[str, float | None]
    seeds: list[int]
    model_path: str | None

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "variants": {name: variant.to_dict() for name, variant in self.variants.items()}}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Comparison:
        variants = {name: Variant.from_dict(variant) for name, variant in document["variants"].items()}
        return cls(**{**document, "variants": variants})


def compare(
    spec: TrialSpec,
    data: Data,
    genotype: Genotype,
    *,
    directory: Path | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Retrain the derived network and each baseline on train + validation for every seed; test accuracy of each."""
    seeds = list(range(spec.compare.seeds))
    singles = single_genotypes(spec, data) if "best_single" in spec.compare.baselines else {}
    plans = baseline_plans(spec, data, genotype)
    total = len(singles) + len(seeds) * (len(plans) + bool(singles))
    cells = _Cells(spec, data, directory, progress or _silent, total)

    candidates = {name: cells.measure(single, 0, "select", f"choosing {name}") for name, single in singles.items()}
    scores = {name: cell.accuracy for name, cell in candidates.items() if cell.diverged is None}
    best_single = max(scores, key=scores.__getitem__) if scores else ""
    if best_single:
        label = f"best single candidate: {best_single}"
        plans["best_single"] = Plan("best_single", label, (singles[best_single],) * len(seeds))
    order = ["derived", *(name for name in dict.fromkeys(spec.compare.baselines) if name in plans)]
    return Comparison(
        variants={name: cells.variant(plans[name], scores.get(best_single)) for name in order},
        best_single=best_single,
        candidates={name: scores.get(name) for name in singles},
        seeds=seeds,
        model_path=cells.model_path(genotype),
    )


# ---- what is compared: no training, no files ----


@dataclass(frozen=True)
class Plan:
    """A variant before it is trained: one genotype a seed."""

    name: str
    label: str
    genotypes: tuple[Genotype, ...]


def baseline_plans(spec: TrialSpec, data: Data, genotype: Genotype) -> dict[str, Plan]:
    """The derived network and every baseline that is known before anything is trained."""
    seeds, top_k = spec.compare.seeds, genotype.top_k
    model = fresh_model(spec, data)
    options = site_options(spec, data)
    plans = {"derived": Plan("derived", f"derived (k = {top_k})", (genotype,) * seeds)}
    for name in spec.compare.baselines:
        if name == "original":
            plans[name] = Plan(name, "the model's own activations", (Genotype.original(model, **options),) * seeds)
        elif name == "random_mixture":
            draws = (
                genotype.random_like(spec.search_space, generator(spec.seed, "compare", "random_mixture", seed))
                for seed in range(seeds)
            )
            plans[name] = Plan(name, f"random mixture (k = {top_k})", tuple(draws))
        elif name != "best_single":
            plans[name] = Plan(name, f"{name} at every site", (Genotype.uniform(model, name, **options),) * seeds)
    return plans


def single_genotypes(spec: TrialSpec, data: Data) -> dict[str, Genotype]:
    """Each candidate of the bank at every site."""
    model = fresh_model(spec, data)
    return {name: Genotype.uniform(model, name, **site_options(spec, data)) for name in spec.search_space}


def fresh_model(spec: TrialSpec, data: Data) -> torch.nn.Module:
    component = spec.task.model
    return build_model(
        component.name, component.options, input_shape=data.input_shape, classes=data.classes, seed=spec.seed
    )


def site_options(spec: TrialSpec, data: Data) -> dict[str, Any]:
    return {"include": spec.sites.include, "exclude": spec.sites.exclude, "partial": spec.sites.partial}


def network_identity(genotype: Genotype, own: Mapping[str, str]) -> str:
    """The same string for genotypes that build the same network, whatever search they come from.

    `own` is the model's own function at each site.
    """
    sites = {}
    for site, gene in genotype.sites.items():
        functions = [own.get(site, function) if function == ORIGINAL else function for function in gene.functions]
        weights: Any = [] if len(functions) == 1 and _all_ones(gene.weights) else gene.weights
        sites[site] = [functions, weights, dict(gene.betas)]
    return json.dumps(sites, sort_keys=True)


def _all_ones(weights: Any) -> bool:
    return all(map(_all_ones, weights)) if isinstance(weights, (list, tuple)) else weights == 1


# ---- the cells: one trained network each ----


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one trained network measured."""

    accuracy: float
    diverged: str | None
    train_loss: float | None
    parameters: int
    seconds: float
    weights_sha256: str | None = None


class _Cells:
    """Trains, measures and remembers; in files where there is a directory."""

    def __init__(self, spec: TrialSpec, data: Data, directory: Path | None, progress: Progress, total: int) -> None:
        self.spec, self.data, self.directory = spec, data, directory
        self._progress, self._total, self._done = progress, total, 0
        self._known: dict[str, Cell] = {}
        self._splits: dict[Purpose, tuple[Split, Split]] = {}
        report = find_sites(fresh_model(spec, data), partial=True)
        self._own = {site.name: site.function for site in report.sites}
        parts = {"seed", "task", "search", "retrain"}
        budget = spec.model_dump(mode="json", include=parts)
        budget["search"] = {name: budget["search"][name] for name in ("optimiser", "batch_size")}
        self._base = json.dumps(
            [SCHEMA, budget, data_fingerprint(data.train), data_fingerprint(data.val)], sort_keys=True
        )

    def variant(self, plan: Plan, best_single_accuracy: float | None) -> Variant:
        cells = [
            self.measure(genotype, seed, "test", f"{plan.name}, seed {seed}", keep=plan.name == "derived" and seed == 0)
            for seed, genotype in enumerate(plan.genotypes)
        ]
        return Variant(
            name=plan.name,
            label=plan.label,
            genotype=plan.genotypes[0],
            genotypes=list(plan.genotypes),
            test_accuracies=[cell.accuracy for cell in cells],
            val_accuracy=best_single_accuracy if plan.name == "best_single" else None,
            diverged=[seed for seed, cell in enumerate(cells) if cell.diverged is not None],
            parameters=cells[0].parameters,
            seconds=sum(cell.seconds for cell in cells),
        )

    def measure(self, genotype: Genotype, seed: int, purpose: Purpose, label: str, *, keep: bool = False) -> Cell:
        """The cell of a network, trained only where nobody has yet; `keep` asks for its weights too."""
        key = self.key(genotype, seed, purpose)
        cell = self._known.get(key) or self._load(key)
        if cell is None or (keep and cell.diverged is None and not self._weights_kept(cell)):
            cell = self._train(genotype, seed, purpose, keep)
            if self.directory is not None:
                write_json(self._path(key), {"schema": SCHEMA, "key": key, "cell": asdict(cell)})
        self._known[key] = cell
        self._done += 1
        self._progress(self._done, self._total, label)
        return cell

    def key(self, genotype: Genotype, seed: int, purpose: Purpose) -> str:
        text = json.dumps([self._base, network_identity(genotype, self._own), seed, purpose])
        return hashlib.sha256(text.encode()).hexdigest()

    def model_path(self, genotype: Genotype) -> str | None:
        cell = self._known[self.key(genotype, 0, "test")]
        return str(self._weights_path) if self._weights_path is not None and self._weights_kept(cell) else None

    def _train(self, genotype: Genotype, seed: int, purpose: Purpose, keep: bool) -> Cell:
        started = time.perf_counter()
        train, held_out = self._split(purpose)
        # no name of a variant goes into the seed: same weights, order and masks for all of them
        state = begin_retrain(self.spec, self.data, genotype, "compare", seed)
        accuracy, train_loss, diverged, weights = 0.0, None, None, None
        try:
            for epoch in retrain_epochs(self.spec, state, train, "compare"):
                train_loss = epoch.metrics["train_loss"]
            with state.stream:
                accuracy = evaluate(state.model, held_out, place=f"compare seed {seed}, after training").accuracy
            weights = self._save_weights(state.model) if keep else None
        except Divergence as error:
            diverged = str(error)
        return Cell(
            accuracy=accuracy,
            diverged=diverged,
            train_loss=train_loss,
            parameters=sum(parameter.numel() for parameter in state.model.parameters()),
            seconds=time.perf_counter() - started,
            weights_sha256=weights,
        )

    def _split(self, purpose: Purpose) -> tuple[Split, Split]:
        """What to train on and what to measure on; choosing among candidates never sees the test data."""
        if purpose not in self._splits:
            if purpose == "test":
                self._splits[purpose] = (self.data.train_and_val(), self.data.test.open())
            else:
                self._splits[purpose] = (self.data.train, self.data.val)
        return self._splits[purpose]

    def _path(self, key: str) -> Path:
        return (self.directory or Path()) / "cells" / f"{key[:24]}.json"

    def _load(self, key: str) -> Cell | None:
        if self.directory is None or not self._path(key).exists():
            return None
        try:
            document = json.loads(self._path(key).read_text())
            return Cell(**document["cell"]) if document["schema"] == SCHEMA and document["key"] == key else None
        except (OSError, ValueError, KeyError, TypeError):
            logger.warning("%s: the cell cannot be read: its network is trained again", self._path(key))
            return None

    @property
    def _weights_path(self) -> Path | None:
        return None if self.directory is None else self.directory / "model.pt"

    def _save_weights(self, model: torch.nn.Module) -> str | None:
        if self._weights_path is None:
            return None
        buffer = io.BytesIO()
        torch.save(model.state_dict(), buffer)
        write_atomically(self._weights_path, buffer.getvalue())
        return hashlib.sha256(buffer.getvalue()).hexdigest()

    def _weights_kept(self, cell: Cell) -> bool:
        """Whether the weights on the disk are those of this cell (always, where nothing is to be kept on a disk)."""
        path = self._weights_path
        if path is None:
            return True
        return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == cell.weights_sha256


def _silent(done: int, total: int, label: str) -> None:
    """No progress is shown."""
