"""What holds for every derivation that is registered."""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from functools import cache
from typing import Any

import pytest
import torch
from derivation_problems import begin_net, examples, searched

from nasact.derivation import DERIVATIONS, DerivationContext, Derived, build, derive_by
from nasact.errors import GenotypeError, StudyError, UnknownName
from nasact.supernet import Genotype
from nasact.training.metrics import evaluate
from nasact.training.seeds import capture_rng

NAMES = DERIVATIONS.names()
QUICK: dict[str, dict[str, Any]] = {
    "magnitude": {},
    "perturbation": {"epochs": 1},
    "refit": {"epochs": 2},
    "validated": {"networks": 3, "epochs": 2},
}
LEVELS = ("layer", "channel", "neuron")
SERVED = [(name, level) for name in NAMES for level in LEVELS if level in (DERIVATIONS.get(name).levels or LEVELS)]


@cache
def given(level: str = "layer", normaliser: str = "softmax") -> DerivationContext:
    return searched(level, normaliser)


def derived(name: str, given: DerivationContext, top_k: Any = 1, **options: Any) -> Derived:
    return derive_by(build(name, {**QUICK[name], **options}), given, top_k)


def test_these_are_the_derivations() -> None:
    assert NAMES == ("magnitude", "perturbation", "refit", "validated")
    assert len(SERVED) == 11


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
@pytest.mark.parametrize(("name", "level"), SERVED)
def test_a_derivation_gives_a_network_twice_the_same_and_leaves_the_search_alone(
    name: str, level: str, top_k: Any
) -> None:
    search = given(level)
    before, alphas = copy.deepcopy(search.run.state_dict()), [a.clone() for a in search.supernet.arch_parameters()]
    modes = [module.training for module in search.supernet.modules()]
    found = derived(name, search, top_k)

    assert same(search.run.state_dict(), before)
    assert all(map(torch.equal, search.supernet.arch_parameters(), alphas))
    assert [module.training for module in search.supernet.modules()] == modes

    torch.manual_seed(99)
    outside = capture_rng()
    again = derived(name, search, top_k)
    assert same(capture_rng(), outside)
    assert again.genotype == found.genotype
    assert {**again.metrics, "seconds": 0} == {**found.metrics, "seconds": 0}
    assert {"networks", "epochs", "seconds"} <= found.metrics.keys()

    assert Genotype.from_json(found.genotype.to_json()) == found.genotype
    assert list(found.genotype.sites) == list(search.supernet.mixtures())
    network = begin_net(found.genotype, 0).model.eval()
    assert bool(torch.isfinite(network(examples(5, 3).x)).all())


@pytest.mark.parametrize("normaliser", ["affine", "abs", "sigmoid", "gumbel", "free"])
@pytest.mark.parametrize("name", NAMES)
def test_a_derivation_serves_every_kind_of_weights(name: str, normaliser: str) -> None:
    genotype = derived(name, given("layer", normaliser)).genotype
    assert all(len(gene.functions) == 1 for gene in genotype.sites.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_search_that_was_saved_and_loaded_derives_the_same(name: str) -> None:
    original = given()
    other = searched()
    other.run.load_state_dict(original.run.state_dict())
    assert derived(name, other).genotype == derived(name, original).genotype


@pytest.mark.parametrize("name", NAMES)
def test_a_top_k_that_no_site_has_is_refused(name: str) -> None:
    with pytest.raises(GenotypeError, match=r"top_k must be between 1 and 3 \(its candidates\), but got 4"):
        derived(name, given(), 4)


@pytest.mark.parametrize(
    ("name", "options", "said"),
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
def test_bad_options_are_refused(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(StudyError) as refused:
        build(name, options)
    assert said in str(refused.value)


def test_every_numeric_option_refuses_a_negative_number() -> None:
    numbers = [
        (name, field.name)
        for name in NAMES
        for field in fields(DERIVATIONS.get(name))
        if field.type in ("int", "float")
    ]
    assert len(numbers) == 7
    for name, option in numbers:
        with pytest.raises(StudyError, match=option):
            build(name, {option: -1})


def test_an_unknown_derivation_is_told_with_the_nearest() -> None:
    with pytest.raises(
        UnknownName, match=r"unknown derivation 'refitt'. Did you mean 'refit'\? \(nasact list derivations\)"
    ):
        build("refitt", {})


def test_a_level_that_is_not_served_is_refused() -> None:
    with pytest.raises(StudyError, match="'perturbation' needs level layer or channel, but the level is 'neuron'"):
        derived("perturbation", given("neuron"))


@pytest.mark.parametrize("name", ["perturbation", "validated"])
def test_another_seed_is_another_derivation(name: str) -> None:
    # the order of the sites, the networks' first weights: they show in the metrics or the tuned betas
    seen = [derived(name, replace(given(), seed=seed)) for seed in range(6)]
    assert len({str((one.genotype, {**one.metrics, "seconds": 0})) for one in seen}) > 1


@pytest.mark.parametrize(("name", "level"), [*((name, "layer") for name in NAMES), ("perturbation", "channel")])
def test_what_a_derivation_takes_is_within_what_it_says(name: str, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """... exactly, but where the search decides how many networks there are to train."""
    validations = 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal validations
        validations += 1
        return evaluate(*arguments, **options)

    for room in ("perturbation", "refit"):
        monkeypatch.setattr(f"nasact.derivation.{room}.evaluate", counted)
    search = given(level)
    alphas = [mixture.alpha for mixture in search.supernet.mixtures().values()]
    said = build(name, QUICK[name]).estimate_cost([(alpha[..., 0].numel(), alpha.shape[-1]) for alpha in alphas])
    took = derived(name, search).metrics["epochs"]
    assert validations == said.validations
    if name == "validated":
        assert 0 < took <= said.network_epochs
        assert said.supernet_epochs == 0
    else:
        assert took == said.supernet_epochs
        assert said.network_epochs == 0
    assert said.mixture_epochs == (said.supernet_epochs if name == "refit" else 0)
