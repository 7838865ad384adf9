"""The comparison itself: derived network and baselines, retrained at equal budget over the same seeds."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nasact.compare.run_cache import Progress, RunCache
from nasact.compare.seed_run import SeedRun, TrainingJob
from nasact.compare.variants import VariantSpec, baseline_variants, single_genotypes
from nasact.study import TrialSpec
from nasact.supernet import Genotype
from nasact.tasks import Data


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of the comparison, with the same seeds in the same order as every other row.

    `genotypes`: one per seed (they differ for `random_mixture` only); `genotype` is the first of them. A run that
    diverged counts as accuracy 0; `diverged` lists the indices of these runs. `val_accuracy`: of `best_single`, by
    which it was chosen; None for other variants. `seconds`: of all runs together.
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
        # a genotype that all seeds share is written once
        genotypes = self.genotypes if any(each != self.genotype for each in self.genotypes) else [self.genotype]
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

    `candidates`: validation accuracy of each single candidate (None: it diverged), by which `best_single` was chosen;
    `best_single` is empty if the study does not list this baseline. `model_path`: file with the weights of the derived
    network of the first seed; None if nothing is stored or this network diverged.
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
    workers: int = 1,
) -> Comparison:
    """Retrain the derived network and each baseline on train + validation data for every seed; test accuracy of each.

    `directory`: measurements and weights are stored there and read again (None: not stored). `progress(done, total,
    label)` is called after each network. `workers`: processes that train networks; the numbers do not depend on it.
    """
    seeds = list(range(spec.compare.seeds))
    singles = single_genotypes(spec, data) if "best_single" in spec.compare.baselines else {}
    variants = baseline_variants(spec, data, genotype)
    total = len(singles) + len(seeds) * (len(variants) + bool(singles))
    with contextlib.closing(RunCache(spec, data, directory, progress or _no_progress, total, workers)) as cache:
        choice = cache.measure(
            [TrainingJob(single, 0, "select", f"choosing {name}") for name, single in singles.items()]
        )
        scores = {name: run.accuracy for name, run in zip(singles, choice, strict=True) if run.diverged is None}
        best_single = max(scores, key=scores.__getitem__) if scores else ""
        if best_single:
            label = f"best single candidate: {best_single}"
            variants["best_single"] = VariantSpec("best_single", label, (singles[best_single],) * len(seeds))
        order = ["derived", *(name for name in dict.fromkeys(spec.compare.baselines) if name in variants)]
        measured = cache.measure_variants(variants[name] for name in order)
        return Comparison(
            variants={name: _variant(variants[name], measured[name], scores.get(best_single)) for name in order},
            best_single=best_single,
            candidates={name: scores.get(name) for name in singles},
            seeds=seeds,
            model_path=cache.model_path(genotype),
        )


def _variant(variant: VariantSpec, runs: list[SeedRun], best_single_accuracy: float | None) -> Variant:
    return Variant(
        name=variant.name,
        label=variant.label,
        genotype=variant.genotypes[0],
        genotypes=list(variant.genotypes),
        test_accuracies=[run.accuracy for run in runs],
        val_accuracy=best_single_accuracy if variant.name == "best_single" else None,
        diverged=[seed for seed, run in enumerate(runs) if run.diverged is not None],
        parameters=runs[0].parameters,
        seconds=sum(run.seconds for run in runs),
    )


def _no_progress(done: int, total: int, label: str) -> None:
    """Show nothing."""
