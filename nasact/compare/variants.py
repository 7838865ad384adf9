"""What is compared: the variants, their genotypes, and which of them build the same network. No training, no files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nasact.reserved_names import ORIGINAL
from nasact.study import TrialSpec
from nasact.study_model import build_study_model
from nasact.supernet import Genotype
from nasact.tasks import Data
from nasact.training.seeds import generator


@dataclass(frozen=True)
class VariantSpec:
    """A variant before it is trained, with one genotype per seed."""

    name: str
    label: str
    genotypes: tuple[Genotype, ...]


def baseline_variants(spec: TrialSpec, data: Data, genotype: Genotype) -> dict[str, VariantSpec]:
    """The derived network and every baseline except `best_single`, which depends on trained candidates."""
    seeds, top_k = spec.compare.seeds, genotype.top_k
    model = build_study_model(spec, data)
    options = site_options(spec, data)
    variants = {"derived": VariantSpec("derived", f"derived (k = {top_k})", (genotype,) * seeds)}
    for name in spec.compare.baselines:
        if name == "original":
            variants[name] = VariantSpec(
                name, "the model's own activations", (Genotype.original(model, **options),) * seeds
            )
        elif name == "random_mixture":
            draws = (
                genotype.random_like(spec.search_space, generator(spec.seed, "compare", "random_mixture", seed))
                for seed in range(seeds)
            )
            variants[name] = VariantSpec(name, f"random mixture (k = {top_k})", tuple(draws))
        elif name != "best_single":
            variants[name] = VariantSpec(
                name, f"{name} at every site", (Genotype.uniform(model, name, **options),) * seeds
            )
    return variants


def single_genotypes(spec: TrialSpec, data: Data) -> dict[str, Genotype]:
    """By candidate of the search space: the genotype with this candidate at every site."""
    model = build_study_model(spec, data)
    return {name: Genotype.uniform(model, name, **site_options(spec, data)) for name in spec.search_space}


def site_options(spec: TrialSpec, data: Data) -> dict[str, Any]:
    """The study's choice of sites, as keyword arguments of `find_sites` and of the constructors of genotypes."""
    return {
        "include": spec.sites.include,
        "exclude": spec.sites.exclude,
        "partial": spec.sites.partial,
        "example_input": data.train.x[:2].cpu(),
    }


def network_identity(genotype: Genotype, original_functions: Mapping[str, str]) -> str:
    """A string that is equal for genotypes that build the same network, whatever search they come from.

    `original_functions`: site -> the model's own function.
    """
    sites = {}
    for site, gene in genotype.sites.items():
        functions = [
            original_functions.get(site, function) if function == ORIGINAL else function for function in gene.functions
        ]
        weights: Any = [] if len(functions) == 1 and _all_ones(gene.weights) else gene.weights
        sites[site] = [functions, weights, dict(gene.betas)]
    return json.dumps(sites, sort_keys=True)


def _all_ones(weights: Any) -> bool:
    return all(map(_all_ones, weights)) if isinstance(weights, (list, tuple)) else weights == 1
