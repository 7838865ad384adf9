"""The comparison: paired seeds, equal budget; only it opens the test set; no network is trained twice."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nasact.compare.seed_run
from nasact.compare import Comparison, baseline_variants, compare, network_identity, single_genotypes
from nasact.compare.seed_run import train_seed_run
from nasact.errors import NasactError
from nasact.study import TrialSpec
from nasact.study_model import build_study_model
from nasact.supernet import Genotype, SiteGene
from nasact.tasks import Data, TestSet
from nasact.training.metrics import evaluate
from nasact.trial import derived_model

BASELINES = ["original", "best_single", "random_mixture", "tanh"]


@pytest.fixture(scope="module")
def spec(make_spec: Callable[..., TrialSpec]) -> TrialSpec:
    return make_spec(retrain={"epochs": 2}, compare={"baselines": BASELINES, "seeds": 3})


@pytest.fixture(scope="module")
def genotype(spec: TrialSpec, load: Callable[[TrialSpec], Data]) -> Genotype:
    uniform = Genotype.uniform(build_study_model(spec, load(spec)), "relu")
    first, second = uniform.sites
    gene = SiteGene(("tanh", "relu"), (0.25, 0.75), {}, uniform.sites[first].channel_dim)
    return replace(uniform, sites={first: gene, second: uniform.sites[second]}, top_k=2)


@pytest.fixture(scope="module")
def comparison(spec: TrialSpec, genotype: Genotype, load: Callable[[TrialSpec], Data]) -> Comparison:
    return compare(spec, load(spec), genotype)


def timeless(comparison: Comparison) -> dict[str, Any]:
    document = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    for variant in document["variants"].values():
        variant.pop("seconds")
    return document | {"model_path": None}


class TrainedNetworks:
    """The number of training examples of each network that is trained."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        retrain_epochs = nasact.compare.seed_run.retrain_epochs

        def recording(spec: TrialSpec, state: Any, train: Any, phase: str) -> Any:
            self.sizes.append(len(train))
            return retrain_epochs(spec, state, train, phase)

        monkeypatch.setattr(nasact.compare.seed_run, "retrain_epochs", recording)


def test_every_variant_is_measured_for_every_seed(comparison: Comparison, spec: TrialSpec) -> None:
    assert list(comparison.variants) == ["derived", *BASELINES]
    assert comparison.seeds == [0, 1, 2]
    assert comparison.best_single in spec.search_space
    assert list(comparison.candidates) == list(spec.search_space)
    for name, variant in comparison.variants.items():
        assert variant.name == name
        assert len(variant.test_accuracies) == len(variant.genotypes) == 3
        assert all(0.1 < accuracy <= 1 for accuracy in variant.test_accuracies)
        assert variant.parameters > 0
        assert variant.diverged == []
    assert len({variant.parameters for variant in comparison.variants.values()}) == 1
    best = comparison.candidates[comparison.best_single]
    assert comparison.variants["best_single"].val_accuracy == best
    assert best == max(accuracy for accuracy in comparison.candidates.values() if accuracy is not None)


def test_a_comparison_survives_json(comparison: Comparison) -> None:
    again = Comparison.from_dict(json.loads(json.dumps(comparison.to_dict(), allow_nan=False)))
    assert again == comparison


def test_the_random_mixture_is_drawn_for_every_seed_from_the_same_bank(
    comparison: Comparison, spec: TrialSpec, genotype: Genotype
) -> None:
    random = comparison.variants["random_mixture"].genotypes
    assert len({drawn.to_json() for drawn in random}) == 3
    assert all(drawn.top_k == genotype.top_k and list(drawn.sites) == list(genotype.sites) for drawn in random)
    assert all(set(drawn.functions()) <= set(spec.search_space) for drawn in random)


def test_the_same_seed_gives_the_same_comparison(
    comparison: Comparison, spec: TrialSpec, genotype: Genotype, load: Callable[[TrialSpec], Data]
) -> None:
    torch.manual_seed(999)
    assert timeless(compare(spec, load(spec), genotype)) == timeless(comparison)


def test_the_test_set_is_opened_once_and_only_after_the_choice_among_candidates(
    spec: TrialSpec, genotype: Genotype, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = TrainedNetworks(monkeypatch)
    seen: list[tuple[int, int]] = []
    compare(spec, data, genotype, progress=lambda done, total, label: seen.append((done, data.test.openings)))
    assert [openings for _, openings in seen[:4]] == [0] * 4
    assert data.test.openings == 1
    assert trained.sizes[:4] == [len(data.train)] * 4
    assert set(trained.sizes[4:]) == {len(data.train) + len(data.val)}


def test_progress_counts_every_network_to_the_end(spec: TrialSpec, genotype: Genotype, data: Data) -> None:
    seen: list[tuple[int, int, str]] = []
    compare(spec, data, genotype, progress=lambda *step: seen.append(step))
    assert [done for done, _, _ in seen] == list(range(1, 20))
    assert {total for _, total, _ in seen} == {4 + 5 * 3}
    assert seen[4][2] == "derived, seed 0"


def test_networks_that_are_the_same_are_trained_once(
    spec: TrialSpec, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = TrainedNetworks(monkeypatch)
    derived = Genotype.uniform(build_study_model(spec, data), "relu")
    spec = spec.model_copy(update={"compare": spec.compare.model_copy(update={"baselines": ("original", "relu")})})
    result = compare(spec, data, derived)
    assert len(trained.sizes) == 3
    assert {tuple(variant.test_accuracies) for variant in result.variants.values()} == {
        tuple(result.variants["derived"].test_accuracies)
    }
    assert (result.best_single, result.candidates) == ("", {})


def functional_mlp(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return FunctionalMlp(math.prod(input_shape), classes)


class FunctionalMlp(nn.Module):
    """Applies its activations in its own forward, in place, and draws random numbers."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(features, 12), nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu_(self.first(x.flatten(1)))
        return self.second(F.dropout(torch.tanh(hidden), 0.1, self.training))


def test_the_original_row_goes_through_the_same_surgery_as_a_derived_row_that_equals_it(
    make_spec: Callable[..., TrialSpec], data: Data
) -> None:
    spec = make_spec(task={"model": {"name": "test_compare:functional_mlp"}}, retrain={"epochs": 2})
    model = build_study_model(spec, data)
    original, tanh = Genotype.original(model), Genotype.uniform(model, "tanh")
    (first, second) = original.sites
    equal = replace(tanh, sites={first: SiteGene(("relu",), (1.0,), {}), second: tanh.sites[second]})
    networks = [[name for name, _ in genotype.apply(model).named_modules()] for genotype in (original, tanh, equal)]
    assert networks[0] == networks[1] == networks[2]
    assert {first, second} <= set(networks[0])
    job = nasact.compare.seed_run.TrainingJob(original, 0, "select", "")
    runs = []
    for genotype in (original, equal, tanh):
        run, _ = train_seed_run(spec, data, replace(job, genotype=genotype), data.train, data.val)
        runs.append((run.accuracy, run.train_loss, run.parameters))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    names = {first: "relu", second: "tanh"}
    assert network_identity(original, names) == network_identity(equal, names)


def test_genotypes_that_build_the_same_network_have_one_identity(spec: TrialSpec, data: Data) -> None:
    model = build_study_model(spec, data)
    relu, tanh = Genotype.uniform(model, "relu"), Genotype.uniform(model, "tanh")
    original_functions = dict.fromkeys(relu.sites, "relu")
    channel = replace(
        relu,
        level="channel",
        sites={name: replace(gene, weights=((1.0,), (1.0,))) for name, gene in relu.sites.items()},
    )
    scaled = replace(relu, sites={name: replace(gene, weights=(0.5,)) for name, gene in relu.sites.items()})
    same = [relu, channel, Genotype.original(model), replace(relu, normaliser="affine", top_k=2)]
    assert len({network_identity(genotype, original_functions) for genotype in same}) == 1
    assert len({network_identity(genotype, original_functions) for genotype in (relu, tanh, scaled)}) == 3


def test_variants_of_a_seed_start_from_the_same_weights(spec: TrialSpec, data: Data, genotype: Genotype) -> None:
    variants = baseline_variants(spec, data, genotype)
    states = [
        nasact.compare.seed_run.begin_retrain(spec, data, variant.genotypes[1], "compare", 1)
        for variant in variants.values()
    ]
    first = list(states[0].model.parameters())
    assert len(states) == 4
    for state in states[1:]:
        assert state.seed == states[0].seed
        assert all(torch.equal(a, b) for a, b in zip(first, state.model.parameters(), strict=True))


def test_an_interrupted_comparison_continues_and_equals_an_uninterrupted_one(
    comparison: Comparison,
    spec: TrialSpec,
    genotype: Genotype,
    data: Data,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(done: int, total: int, label: str) -> None:
        if done == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(spec, data, genotype, directory=tmp_path, progress=interrupt)
    assert len(list((tmp_path / "cells").iterdir())) == 9
    # a damaged file is measured again
    sorted((tmp_path / "cells").iterdir())[0].write_text("{")
    trained = TrainedNetworks(monkeypatch)
    result = compare(spec, data, genotype, directory=tmp_path)
    assert timeless(result) == timeless(comparison)
    assert len(trained.sizes) <= 4 + 5 * 3 - 8

    trained.sizes.clear()
    openings = data.test.openings
    again = compare(spec, data, genotype, directory=tmp_path)
    assert again == result
    assert trained.sizes == []
    assert data.test.openings == openings


def test_the_weights_on_the_disk_are_those_of_the_derived_network_of_the_first_seed(
    spec: TrialSpec, genotype: Genotype, data: Data, tmp_path: Path
) -> None:
    result = compare(spec, data, genotype, directory=tmp_path)
    assert result.model_path == str(tmp_path / "model.pt")

    def accuracy(of: Genotype) -> float:
        model = derived_model(spec, data, of, seed=0)
        model.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
        return evaluate(model, data.test.open()).accuracy

    assert accuracy(genotype) == result.variants["derived"].test_accuracies[0]
    # another genotype replaces the file; comparing the first one again restores its weights
    other = Genotype.uniform(build_study_model(spec, data), "sigmoid")
    replaced = compare(spec, data, other, directory=tmp_path)
    assert accuracy(other) == replaced.variants["derived"].test_accuracies[0]
    assert timeless(compare(spec, data, genotype, directory=tmp_path)) == timeless(result)
    assert accuracy(genotype) == result.variants["derived"].test_accuracies[0]


def test_a_baseline_that_diverges_counts_as_zero_and_does_not_end_the_comparison(
    make_spec: Callable[..., TrialSpec], data: Data
) -> None:
    spec = make_spec(
        search_space=["relu", "tanh"],
        retrain={"epochs": 1, "optimiser": {"name": "sgd", "lr": 1e30}},
        compare={"baselines": ["original", "best_single", "random_mixture"], "seeds": 2},
    )
    result = compare(spec, data, Genotype.uniform(build_study_model(spec, data), "relu"))
    assert result.variants["original"].test_accuracies == [0.0, 0.0]
    assert result.variants["original"].diverged == [0, 1]
    assert result.model_path is None
    assert result.candidates["relu"] is None


def test_an_unknown_baseline_is_refused_before_anything_is_trained(
    spec: TrialSpec, genotype: Genotype, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = TrainedNetworks(monkeypatch)
    wrong = spec.model_copy(update={"compare": spec.compare.model_copy(update={"baselines": ("rellu",)})})
    with pytest.raises(NasactError, match="Did you mean 'relu'"):
        compare(wrong, data, genotype)
    assert trained.sizes == []


def test_other_test_data_are_measured_again(
    spec: TrialSpec, genotype: Genotype, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = spec.model_copy(update={"compare": spec.compare.model_copy(update={"baselines": (), "seeds": 1})})
    compare(small, data, genotype, directory=tmp_path)
    trained = TrainedNetworks(monkeypatch)
    limited = small.model_copy(update={"task": small.task.model_copy(update={"test_limit": 50})})
    shorter = Data(
        name=data.name,
        train=data.train,
        val=data.val,
        classes=data.classes,
        input_shape=data.input_shape,
        test=TestSet(lambda: data.test.open().take(torch.arange(50))),
    )
    compare(limited, shorter, genotype, directory=tmp_path)
    assert len(trained.sizes) == 1


def test_single_genotypes_are_the_bank(spec: TrialSpec, data: Data) -> None:
    singles = single_genotypes(spec, data)
    assert [genotype.functions() for genotype in singles.values()] == [(name,) for name in spec.search_space]
