"""The genotype table is complete, its summary follows from it, and its script trains as nasact does."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from genotypes import batched_networks, build_table, table, task
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nasact import activations
from nasact.study.sections import Optimiser
from nasact.supernet import Genotype, SiteGene, relax
from nasact.tasks import Data, build_model, load_data
from nasact.training.batches import batches
from nasact.training.loop import begin_fit, fit
from nasact.training.metrics import evaluate

ROOT = Path(__file__).resolve().parents[2]

FUNCTIONS = ("relu", "sin", "sigmoid")
SETTINGS = build_table.Settings(
    dataset="digits",
    train=120,
    validation=60,
    hidden=(6, 5),
    functions=FUNCTIONS,
    epochs=1,
    batch_size=32,
    lr=1e-2,
    average=0.7,
)


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits", {}, validation=60 / 180, seed=0, train_limit=180, test_limit=50)


def derived(data: Data, functions: tuple[str, ...], seed: int) -> nn.Module:
    """The network that nasact builds for this genotype."""
    options = {"hidden": list(SETTINGS.hidden)}
    model = build_model("mlp", options, input_shape=data.input_shape, classes=data.classes, seed=seed)
    names = Genotype.original(model).sites
    sites = {name: SiteGene((function,), (1.0,), {}) for name, function in zip(names, functions, strict=True)}
    return Genotype(sites=sites, level="layer", normaliser="softmax", top_k=1).apply(model)


def dense(model: nn.Module) -> list[nn.Linear]:
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


def test_training_all_networks_at_once_equals_training_each_alone_with_ordinary_modules(digits: Data) -> None:
    networks = build_table.build_networks(SETTINGS, digits, seed=3)
    template = dense(
        build_model("mlp", {"hidden": [6, 5]}, input_shape=(1, 8, 8), classes=10, seed=build_table.model_seed(3))
    )
    genotypes = networks.genotypes()
    assert len(genotypes) == 9
    networks = batched_networks.Networks(nn.Sequential(*template).double(), FUNCTIONS)
    drawn = [(b.x.double(), b.y) for b in batches(digits.train, 32, seed=0, phase="any", epoch=0)]
    batched_networks.train_epoch(networks, batched_networks.adam(networks, 1e-2), drawn)
    for index, genotype in enumerate(genotypes):
        layers = [nn.Linear(layer.in_features, layer.out_features).double() for layer in template]
        for layer, source in zip(layers, template, strict=True):
            layer.load_state_dict(source.state_dict())
        optimiser = torch.optim.Adam([p for layer in layers for p in layer.parameters()], lr=1e-2)
        for x, y in drawn:
            h = x.flatten(1)
            for layer, name in zip(layers, genotype, strict=False):
                h = activations.get(name).function(layer(h))
            optimiser.zero_grad()
            cross_entropy(layers[-1](h), y).backward()
            optimiser.step()
        for layer, weight, bias in zip(layers, networks.weights, networks.biases, strict=True):
            torch.testing.assert_close(weight[index].T, layer.weight, rtol=0, atol=1e-10)
            torch.testing.assert_close(bias[index, 0], layer.bias, rtol=0, atol=1e-10)


def test_a_row_of_the_table_equals_what_nasact_trains_and_measures(digits: Data) -> None:
    networks = build_table.build_networks(SETTINGS, digits, seed=1)
    columns = build_table.measure(SETTINGS, digits, seed=1)
    test = digits.test.open()
    for index, genotype in enumerate(networks.genotypes()):
        model = derived(digits, genotype, build_table.model_seed(1))
        averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(SETTINGS.average))
        state = begin_fit(model, Optimiser(name="adam", lr=SETTINGS.lr), seed=1)
        state.optimiser.register_step_post_hook(lambda *_, to=averaged, of=model: to.update_parameters(of))
        for epoch in fit(state, digits.train, epochs=2, batch_size=32, phase=build_table.PHASE):
            suffix = "" if epoch.epoch == 1 else "_twice"
            for name, split in {"val": digits.val, "test": test}.items():
                # one image may be so close to a decision boundary that rounding decides its class
                expected = pytest.approx(evaluate(averaged, split).accuracy, abs=1.01 / len(split))
                assert columns[name + suffix][index] == expected


def test_the_network_of_the_table_has_four_sites_and_the_shapes_of_its_layers(tmp_path: Path) -> None:
    model = build_model(task.MODEL, task.MODEL_OPTIONS, input_shape=(1, 7, 7), classes=10, seed=0)
    supernet = relax(model, task.FUNCTIONS)
    assert len(supernet.mixtures()) == task.SITES == 4
    networks = batched_networks.Networks(model, task.FUNCTIONS)
    assert [tuple(weight.shape[1:]) for weight in networks.weights] == [
        (layer.in_features, layer.out_features) for layer in dense(model)
    ]


def test_a_finished_seed_is_not_trained_again(digits: Data, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    build_table.build(SETTINGS, digits, range(2), runs, tmp_path / "first")
    times = {path: path.stat().st_mtime_ns for path in runs.iterdir()}
    assert len(times) == 2
    (runs / "seed-0.json").unlink()
    build_table.build(SETTINGS, digits, range(2), runs, tmp_path / "again")
    assert (runs / "seed-1.json").stat().st_mtime_ns == times[runs / "seed-1.json"]
    assert (tmp_path / "again" / "table.csv").read_text() == (tmp_path / "first" / "table.csv").read_text()
    other_settings = build_table.Settings(**{**vars(SETTINGS), "lr": 2e-2})
    build_table.build(other_settings, digits, range(2), runs, tmp_path / "others")
    assert (runs / "seed-1.json").stat().st_mtime_ns != times[runs / "seed-1.json"]
    assert (tmp_path / "others" / "table.csv").read_text() != (tmp_path / "first" / "table.csv").read_text()


# ---- ranks in a table -------------------------------------------------------------------------------------------


def toy() -> table.Table:
    """Five genotypes of one site, two seeds; the means over the seeds are 0.9, 0.7, 0.7, 0.5 and 0.1."""
    tests = {"a": (0.5, 0.5), "b": (0.8, 1.0), "c": (0.6, 0.8), "d": (0.7, 0.7), "e": (0.2, 0.0)}
    return table.Table(
        tuple(
            table.Row((name,), seed, dict.fromkeys(table.ACCURACIES, 0.0) | {"test": values[seed]})
            for seed in range(2)
            for name, values in tests.items()
        )
    )


@pytest.mark.parametrize(
    ("name", "accuracy", "rank", "percentile", "regret"),
    [
        ("b", 0.9, 1, 0, 0),
        ("c", 0.7, 2, 25, 0.2),
        ("d", 0.7, 2, 25, 0.2),
        ("a", 0.5, 4, 75, 0.4),
        ("e", 0.1, 5, 100, 0.8),
    ],
)
def test_a_percentile_counts_the_better_genotypes(
    name: str, accuracy: float, rank: int, percentile: float, regret: float
) -> None:
    genotypes = toy()
    assert genotypes.accuracy((name,)) == pytest.approx(accuracy)
    assert genotypes.rank([name]) == rank
    assert genotypes.percentile((name,)) == percentile
    assert genotypes.regret((name,)) == pytest.approx(regret)


def test_an_unknown_genotype_raises_a_key_error_with_its_name() -> None:
    with pytest.raises(KeyError, match="gelu"):
        toy().percentile(("gelu",))


def test_a_table_that_is_written_and_read_is_the_same(tmp_path: Path) -> None:
    table.write(toy().rows, tmp_path / "toy.csv")
    assert table.Table.load(tmp_path / "toy.csv") == toy()


# ---- the published table -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published() -> table.Table:
    return table.Table.load()


def test_the_table_has_every_genotype_exactly_once_for_every_seed(published: table.Table) -> None:
    settings = json.loads((table.HERE / "table.json").read_text())["settings"]
    assert settings == json.loads(json.dumps(asdict(build_table.Settings()))), "the table was made with other settings"
    genotypes = list(itertools.product(task.FUNCTIONS, repeat=task.SITES))
    assert len(genotypes) == len(set(genotypes)) == 625
    assert len(published.seeds) >= 3
    assert len(published.rows) == 625 * len(published.seeds)
    for seed in published.seeds:
        assert [row.functions for row in published.rows if row.seed == seed] == genotypes
    assert all(0 < value < 1 for row in published.rows for value in row.accuracy.values())


def test_the_functions_of_the_table_are_in_the_catalogue(published: table.Table) -> None:
    assert len(published.functions) >= 5
    assert [activations.get(name).name for name in published.functions] == list(task.FUNCTIONS)


def test_the_summary_of_the_table_follows_from_it() -> None:
    document = json.loads((table.HERE / "table.json").read_text())
    summary = build_table.summarise(table.CSV)
    assert {key: document[key] for key in summary} == summary
    assert document["machine"]["date"]


def test_the_ranking_is_reliable_between_seeds_and_budgets(published: table.Table) -> None:
    correlations = json.loads((table.HERE / "table.json").read_text())["correlations"]
    assert correlations["test: between halves of the seeds"] > 0.8
    assert correlations["test: budget and twice the budget, means"] > 0.9
    # with a budget that is too small, the function that learns fastest wins
    assert published.percentile(("identity",) * task.SITES) > 25
