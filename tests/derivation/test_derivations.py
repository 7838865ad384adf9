"""Properties of every registered derivation."""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from functools import cache
from typing import Any

import pytest
import torch
from derivation_problems import begin_net, examples, search_context

from nasact.derivation import DERIVATIONS, CostEstimate, DerivationContext, Derived, build, derive_by
from nasact.errors import GenotypeError, StudyError, UnknownName
from nasact.supernet import Genotype
from nasact.training.metrics import evaluate
from nasact.training.seeds import capture_rng

NAMES = DERIVATIONS.names()
QUICK: dict[str, dict[str, Any]] = {
    "perturbation": {"epochs": 1},
    "refit": {"epochs": 2},
    "validated": {"networks": 3, "epochs": 2},
}
"""Options with which a derivation takes little time."""
LEVELS = ("layer", "channel", "neuron")
SUPPORTED = [(name, level) for name in NAMES for level in LEVELS if level in (DERIVATIONS.get(name).levels or LEVELS)]


@cache
def context(level: str = "layer", normaliser: str = "softmax") -> DerivationContext:
    return search_context(level, normaliser)


def derived(name: str, search: DerivationContext, top_k: Any = 1, **options: Any) -> Derived:
    return derive_by(build(name, {**QUICK.get(name, {}), **options}), search, top_k)


def test_these_derivations_are_registered() -> None:
    assert {"magnitude", "perturbation", "refit", "validated"} <= set(NAMES)
    assert len(SUPPORTED) >= 11


def same(one: Any, other: Any) -> bool:
    """Equal to the bit, through lists, mappings and tensors."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("top_k", [1, 2, "all"])
@pytest.mark.parametrize(("name", "level"), SUPPORTED)
def test_a_derivation_is_reproducible_and_does_not_change_the_search(name: str, level: str, top_k: Any) -> None:
    search = context(level)
    before, alphas = copy.deepcopy(search.run.state_dict()), [a.clone() for a in search.supernet.arch_parameters()]
    modes = [module.training for module in search.supernet.modules()]
    result = derived(name, search, top_k)

    assert same(search.run.state_dict(), before)
    assert all(map(torch.equal, search.supernet.arch_parameters(), alphas))
    assert [module.training for module in search.supernet.modules()] == modes

    torch.manual_seed(99)
    random_state = capture_rng()
    again = derived(name, search, top_k)
    assert same(capture_rng(), random_state)
    assert again.genotype == result.genotype
    assert {**again.metrics, "seconds": 0} == {**result.metrics, "seconds": 0}
    assert {"networks", "epochs", "seconds"} <= result.metrics.keys()

    assert Genotype.from_json(result.genotype.to_json()) == result.genotype
    assert list(result.genotype.sites) == list(search.supernet.mixtures())
    network = begin_net(result.genotype, 0).model.eval()
    assert bool(torch.isfinite(network(examples(5, 3).x)).all())


@pytest.mark.parametrize("normaliser", ["affine", "abs", "sigmoid", "gumbel", "free"])
@pytest.mark.parametrize("name", NAMES)
def test_a_derivation_supports_every_kind_of_weights(name: str, normaliser: str) -> None:
    genotype = derived(name, context("layer", normaliser)).genotype
    assert all(len(gene.functions) == 1 for gene in genotype.sites.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_and_loaded_search_derives_the_same_genotype(name: str) -> None:
    original = context()
    loaded = search_context()
    loaded.run.load_state_dict(original.run.state_dict())
    assert derived(name, loaded).genotype == derived(name, original).genotype


@pytest.mark.parametrize("name", NAMES)
def test_a_top_k_above_the_number_of_candidates_is_refused(name: str) -> None:
    message = r"top_k must be between 1 and 3 \(the number of its candidates\), but got 4"
    with pytest.raises(GenotypeError, match=message):
        derived(name, context(), 4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("magnitude", {"epochs": 1}, "unknown option 'epochs' of derivation 'magnitude'"),
        ("perturbation", {"epochs": -1}, "epochs must be at least 0, but got -1"),
        ("perturbation", {"by": "los"}, "by must be 'loss' or 'accuracy', but got 'los'. Did you mean 'loss'?"),
        ("perturbation", {"rescale": 1}, "rescale must be true or false, but got 1"),
        ("refit", {"epochs": 0}, "epochs must be at least 1, but got 0"),
        ("refit", {"lr": 0.0}, "lr must be a positive number, but got 0.0"),
        ("validated", {"networks": 0}, "networks must be at least 1, but got 0"),
        ("validated", {"epochs": 0}, "epochs must be at least 1, but got 0"),
        ("validated", {"seeds": 0}, "seeds must be at least 1, but got 0"),
        ("validated", {"margin": 1.5}, "margin must be between 0 and 1, but got 1.5"),
        ("validated", {"epochs": 1.5}, "epochs must be a whole number, but got 1.5"),
    ],
)
def test_bad_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError) as refused:
        build(name, options)
    assert message in str(refused.value)


def test_every_numeric_option_refuses_a_negative_number() -> None:
    numbers = [
        (name, field.name)
        for name in NAMES
        for field in fields(DERIVATIONS.get(name))
        if field.type in ("int", "float")
    ]
    assert len(numbers) >= 7
    for name, option in numbers:
        with pytest.raises(StudyError, match=option):
            build(name, {option: -1})


def test_an_unknown_derivation_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(
        UnknownName, match=r"unknown derivation 'refitt'. Did you mean 'refit'\? \(nasact list derivations\)"
    ):
        build("refitt", {})


def test_an_unsupported_level_is_refused() -> None:
    with pytest.raises(StudyError, match="'perturbation' needs level layer or channel, but the level is 'neuron'"):
        derived("perturbation", context("neuron"))


@pytest.mark.parametrize("name", ["perturbation", "validated"])
def test_the_seed_changes_the_derivation(name: str) -> None:
    # the seed determines the order of the sites and the initial weights of networks: visible in metrics or tuned betas
    results = [derived(name, replace(context(), seed=seed)) for seed in range(6)]
    assert len({str((result.genotype, {**result.metrics, "seconds": 0})) for result in results}) > 1


def estimated_cost(name: str, search: DerivationContext) -> CostEstimate:
    alphas = [mixture.alpha for mixture in search.supernet.mixtures().values()]
    sites = [(alpha[..., 0].numel(), alpha.shape[-1]) for alpha in alphas]
    return build(name, QUICK.get(name, {})).estimate_cost(sites)


@pytest.mark.parametrize(("name", "level"), [*((name, "layer") for name in NAMES), ("perturbation", "channel")])
def test_the_cost_is_within_its_estimate(name: str, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """... and equal to it, except where the search decides how many networks are trained."""
    validations = 0

    def count_and_evaluate(*arguments: Any, **options: Any) -> Any:
        nonlocal validations
        validations += 1
        return evaluate(*arguments, **options)

    monkeypatch.setattr(f"{DERIVATIONS.get(name).__module__}.evaluate", count_and_evaluate, raising=False)
    search = context(level)
    estimate = estimated_cost(name, search)
    epochs = derived(name, search).metrics["epochs"]
    assert validations == estimate.validations
    if estimate.network_epochs:
        assert 0 < epochs <= estimate.network_epochs
        assert estimate.supernet_epochs == 0
    else:
        assert epochs == estimate.supernet_epochs


def test_the_estimates_of_what_is_trained() -> None:
    search = context()
    networks = {name for name in NAMES if estimated_cost(name, search).network_epochs}
    mixtures = {name for name in NAMES if estimated_cost(name, search).mixture_epochs}
    assert {"validated"} == networks & set(QUICK)
    assert {"refit"} == mixtures & set(QUICK)
    refit = estimated_cost("refit", search)
    assert refit.mixture_epochs == refit.supernet_epochs == QUICK["refit"]["epochs"]
    assert estimated_cost("magnitude", search) == CostEstimate()
