"""The genotype table is whole and says what it should; what made it trains as nasact does."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from genotypes import batched, make, table, task
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nasact import activations
from nasact.study.spec import Optimiser
from nasact.supernet import Genotype, SiteGene, relax
from nasact.tasks import Data, build_model, load_data
from nasact.training.batches import batches
from nasact.training.loop import begin_fit, fit
from nasact.training.metrics import evaluate

ROOT = Path(__file__).resolve().parents[2]

FUNCTIONS = ("relu", "sin", "sigmoid")
SETTINGS = make.Settings(
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
    """nasact's own network of this genotype."""
    options = {"hidden": list(SETTINGS.hidden)}
    model = build_model("mlp", options, input_shape=data.input_shape, classes=data.classes, seed=seed)
    names = Genotype.original(model).sites
    sites = {name: SiteGene((function,), (1.0,), {}) for name, function in zip(names, functions, strict=True)}
    return Genotype(sites=sites, level="layer", normaliser="softmax", top_k=1).apply(model)


def dense(model: nn.Module) -> list[nn.Linear]:
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


def test_training_all_at_once_is_training_each_alone_with_ordinary_modules(digits: Data) -> None:
    stack = make.networks(SETTINGS, digits, seed=3)
    template = dense(build_model("mlp", {"hidden": [6, 5]}, input_shape=(1, 8, 8), classes=10, seed=make.model_seed(3)))
    genotypes = stack.genotypes()
    assert len(genotypes) == 9
    stack = batched.Networks(nn.Sequential(*template).double(), FUNCTIONS)
    drawn = [(b.x.double(), b.y) for b in batches(digits.train, 32, seed=0, phase="any", epoch=0)]
    batched.train_epoch(stack, batched.adam(stack, 1e-2), drawn)
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
        for layer, weight, bias in zip(layers, stack.weights, stack.biases, strict=True):
            torch.testing.assert_close(weight[index].T, layer.weight, rtol=0, atol=1e-10)
            torch.testing.assert_close(bias[index, 0], layer.bias, rtol=0, atol=1e-10)


def test_a_row_of_the_table_is_what_nasact_trains_and_measures(digits: Data) -> None:
    stack = make.networks(SETTINGS, digits, seed=1)
    found = make.measure(SETTINGS, digits, seed=1)
    test = digits.test.open()
    for index, genotype in enumerate(stack.genotypes()):
        model = derived(digits, genotype, make.model_seed(1))
        averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(SETTINGS.average))
        state = begin_fit(model, Optimiser(name="adam", lr=SETTINGS.lr), seed=1)
        state.optimiser.register_step_post_hook(lambda *_, to=averaged, of=model: to.update_parameters(of))
        for epoch in fit(state, digits.train, epochs=2, batch_size=32, phase=make.PHASE):
            after = "" if epoch.epoch == 1 else "_twice"
            for name, split in {"val": digits.val, "test": test}.items():
                # one image may lie so near a border that rounding decides
                nearly = pytest.approx(evaluate(averaged, split).accuracy, abs=1.01 / len(split))
                assert found[name + after][index] == nearly


def test_the_network_of_the_table_has_its_sites_and_its_shapes(tmp_path: Path) -> None:
    model = build_model(task.MODEL, task.MODEL_OPTIONS, input_shape=(1, 7, 7), classes=10, seed=0)
    supernet = relax(model, task.FUNCTIONS)
    assert len(supernet.mixtures()) == task.SITES == 4
    stack = batched.Networks(model, task.FUNCTIONS)
    assert [tuple(weight.shape[1:]) for weight in stack.weights] == [
        (layer.in_features, layer.out_features) for layer in dense(model)
    ]


def test_a_seed_that_is_done_is_not_done_again(digits: Data, tmp_path: Path) -> None:
    room = tmp_path / "runs"
    make.make(SETTINGS, digits, range(2), room, tmp_path / "first")
    kept = {path: path.stat().st_mtime_ns for path in room.iterdir()}
    assert len(kept) == 2
    (room / "seed-0.json").unlink()
    make.make(SETTINGS, digits, range(2), room, tmp_path / "again")
    assert (room / "seed-1.json").stat().st_mtime_ns == kept[room / "seed-1.json"]
    assert (tmp_path / "again" / "table.csv").read_text() == (tmp_path / "first" / "table.csv").read_text()
    others = make.Settings(**{**vars(SETTINGS), "lr": 2e-2})
    make.make(others, digits, range(2), room, tmp_path / "others")
    assert (room / "seed-1.json").stat().st_mtime_ns != kept[room / "seed-1.json"]
    assert (tmp_path / "others" / "table.csv").read_text() != (tmp_path / "first" / "table.csv").read_text()


# ---- the table as a yardstick -----------------------------------------------------------------------------------


def toy() -> table.Table:
    """Five genotypes of one site, two seeds; the means over seeds are 0.9, 0.7, 0.7, 0.5 and 0.1."""
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
def test_percentiles_count_what_is_better(
    name: str, accuracy: float, rank: int, percentile: float, regret: float
) -> None:
    found = toy()
    assert found.accuracy((name,)) == pytest.approx(accuracy)
    assert found.rank([name]) == rank
    assert found.percentile((name,)) == percentile
    assert found.regret((name,)) == pytest.approx(regret)


def test_a_genotype_that_the_table_does_not_hold_is_named() -> None:
    with pytest.raises(KeyError, match="gelu"):
        toy().percentile(("gelu",))


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    table.write(toy().rows, tmp_path / "toy.csv")
    assert table.Table.load(tmp_path / "toy.csv") == toy()


# ---- the table that is here -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> table.Table:
    return table.Table.load()


def test_every_genotype_is_there_exactly_once_for_every_seed(real: table.Table) -> None:
    settings = json.loads((table.HERE / "table.json").read_text())["settings"]
    assert settings == json.loads(json.dumps(asdict(make.Settings()))), "the table is of other settings"
    everyone = list(itertools.product(task.FUNCTIONS, repeat=task.SITES))
    assert len(everyone) == len(set(everyone)) == 625
    assert len(real.seeds) >= 3
    assert len(real.rows) == 625 * len(real.seeds)
    for seed in real.seeds:
        assert [row.functions for row in real.rows if row.seed == seed] == everyone
    assert all(0 < value < 1 for row in real.rows for value in row.accuracy.values())


def test_the_functions_of_the_table_are_nasacts(real: table.Table) -> None:
    assert len(real.functions) >= 5
    assert [activations.get(name).name for name in real.functions] == list(task.FUNCTIONS)


def test_what_is_said_of_the_table_follows_from_it() -> None:
    document = json.loads((table.HERE / "table.json").read_text())
    said = {key: document[key] for key in make.summary(table.CSV)}
    assert said == make.summary(table.CSV)
    assert document["machine"]["date"]


def test_the_table_tells_genotypes_apart(real: table.Table) -> None:
    told = json.loads((table.HERE / "table.json").read_text())["correlations"]
    assert told["test: between halves of the seeds"] > 0.8
    assert told["test: budget and twice the budget, means"] > 0.9
    # a budget that is too small is won by what learns first
    assert real.percentile(("identity",) * task.SITES) > 25
