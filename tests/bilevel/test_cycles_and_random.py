"""`cycles` trains one group at a time, as paper 000 does; `random` is a fair draw that nothing moves."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from bilevel_problems import batches, numbers, tiny_supernet
from torch import nn
from torch.nn import functional as F

from nasact.bilevel import Batch, Cycles, Random, build
from nasact.bilevel.snapshot import same_bits
from nasact.errors import StudyError
from nasact.mixture import LEVELS, NORMALISERS
from nasact.supernet import Supernet, derive, relax
from nasact.training.loop import begin_search, search

SPACE = ("relu", "tanh", "silu", "identity")
ALPHAS = {"act1.alpha", "act2.alpha"}


def moved(strategy: Cycles, progress: float) -> tuple[set[str], set[str]]:
    """The alphas and the other parameters that a step at this point of the search moves."""
    supernet = tiny_supernet()
    state = strategy.init(supernet, torch.optim.Adam(supernet.weight_parameters(), lr=1e-3), F.cross_entropy)
    strategy.step(state, *batches())  # the optimiser of w has a memory, which must not move it either
    state.progress = progress
    before = numbers(supernet)
    strategy.step(state, *batches())
    parameters = dict(supernet.named_parameters())
    names = {name for name in parameters if not same_bits(before[name], parameters[name])}
    return names & ALPHAS, names - ALPHAS


@pytest.mark.parametrize("loss", ["train", "val"])
@pytest.mark.parametrize(
    ("progress", "cycle"), [(0.0, 1), (0.3333, 1), (1 / 3, 2), (0.5, 2), (0.6666, 2), (2 / 3, 3), (0.999, 3)]
)
def test_each_third_trains_one_group_and_leaves_the_other_to_the_bit(progress: float, cycle: int, loss: str) -> None:
    alphas, weights = moved(Cycles(loss=loss), progress)
    assert (alphas, bool(weights)) == ((ALPHAS, False) if cycle == 2 else (set(), True))


def test_the_thirds_of_an_epoch_count_that_three_divides_begin_at_whole_epochs() -> None:
    """30 epochs, 10 each, as in the paper: no rounding shifts a border."""
    strategy, cycles = Cycles(), []
    for epoch in range(30):
        cycles.append(strategy.begin <= epoch / 30 < strategy.end)
    assert cycles == [False] * 10 + [True] * 10 + [False] * 10


def fresh() -> nn.Module:
    return tiny_supernet(dropout=0.0, dtype=torch.float64).train()


@pytest.mark.parametrize("loss", ["train", "val"])
def test_a_step_of_alpha_is_one_of_adam_down_the_loss_that_was_asked_for(loss: str) -> None:
    """With w held; and the running statistics follow the training batch whichever loss it is."""
    strategy, supernet, twin = Cycles(lr=0.02, loss=loss), fresh(), fresh()
    train, val = batches(torch.float64)
    losses = {"train": F.cross_entropy(twin(train.x), train.y), "val": F.cross_entropy(twin(val.x), val.y)}
    found = torch.autograd.grad(losses[loss], twin.arch_parameters())
    state = strategy.init(supernet, torch.optim.SGD(supernet.weight_parameters(), lr=0.1), F.cross_entropy)
    state.progress = 0.5
    report = strategy.step(state, train, val)
    for alpha, start, g in zip(supernet.arch_parameters(), twin.arch_parameters(), found, strict=True):
        first_of_adam = start - 0.02 * g / (g.abs() + 1e-8)
        torch.testing.assert_close(alpha.detach(), first_of_adam.detach(), rtol=1e-9, atol=1e-12)
    assert report.train_loss == pytest.approx(losses["train"].item(), rel=1e-12)
    assert report.val_loss == (pytest.approx(losses["val"].item(), rel=1e-12) if loss == "val" else None)
    mean = 0.1 * twin.conv1(train.x).mean((0, 2, 3))
    torch.testing.assert_close(supernet.bn1.running_mean, mean.detach(), rtol=1e-9, atol=1e-12)


BAD = [
    ({"begin": 0.5, "end": 0.5}, r"0 <= begin < end <= 1 must hold, but got \(begin=0.5, end=0.5\)"),
    ({"begin": -0.1}, "0 <= begin < end <= 1 must hold"),
    ({"end": 1.5}, "0 <= begin < end <= 1 must hold"),
    ({"begin": math.nan}, "0 <= begin < end <= 1 must hold"),
    ({"loss": "vall"}, "loss must be 'train' or 'val', but got 'vall'. Did you mean 'val'?"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=str)
def test_cycles_that_cannot_be_are_refused(options: dict, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        build("cycles", options)


# ---- random ---------------------------------------------------------------------------------------------------------


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 2))


def drawn(seed: int, **options) -> Supernet:
    supernet = relax(net(), SPACE, example_input=torch.zeros(2, 4), **options)
    torch.manual_seed(seed)
    Random().init(supernet, torch.optim.SGD(supernet.weight_parameters(), lr=0.1), F.cross_entropy)
    return supernet


def test_every_genotype_is_equally_likely() -> None:
    """Chi-squared over the 4 x 4 genotypes of two sites; the 0.999 quantile for 15 degrees of freedom is 37.7."""
    counts: dict[tuple, int] = {}
    supernet = relax(net(), SPACE)
    optimiser = torch.optim.SGD(supernet.weight_parameters(), lr=0.1)
    torch.manual_seed(0)
    draws = 480
    for _ in range(draws):
        Random().init(supernet, optimiser, F.cross_entropy)
        chosen = tuple(int(p.argmax()) for p in supernet.weights().values())
        counts[chosen] = counts.get(chosen, 0) + 1
    assert len(counts) == 16
    expected = draws / 16
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 37.7


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("normaliser", NORMALISERS.names())
def test_every_row_is_given_to_one_function_whatever_the_normaliser(normaliser: str, level: str) -> None:
    supernet = drawn(3, normaliser=normaliser, level=level, temperature=2.0)
    torch.manual_seed(3)
    for site, p in supernet.weights().items():
        chosen = torch.randint(4, p.shape[:-1])
        assert torch.equal(p.abs().argmax(-1), chosen)
        assert float(p.gather(-1, chosen[..., None]).min()) > 0.9
        assert level == "layer" or len(chosen.unique()) > 1, "rows are drawn one by one"
        gene = derive(supernet).sites[site]
        kept = gene.weights_tensor().argmax(-1)
        names = torch.tensor([SPACE.index(name) for name in gene.functions])
        assert torch.equal(names[kept], chosen)


def test_the_draw_follows_from_the_seed_of_the_search_and_survives_training() -> None:
    generator = torch.Generator().manual_seed(0)
    split = Batch(torch.randn(32, 4, generator=generator), torch.randint(2, (32,), generator=generator))
    options = SimpleNamespace(name="adam", lr=1e-2, weight_decay=1e-4, momentum=0.9)

    def genotypes(seed: int, outside: int) -> tuple:
        supernet = relax(net(), SPACE)
        torch.manual_seed(outside)
        run = begin_search(supernet, Random(), options, seed=seed)
        first = derive(run.supernet)
        before = numbers(run.supernet)
        assert len(list(search(run, split, split, epochs=2, batch_size=8))) == 2
        after = numbers(run.supernet)
        assert all(same_bits(before[name], after[name]) == ("alpha" in name) for name in before if "temp" not in name)
        return first, derive(run.supernet)

    first, last = genotypes(1, outside=5)
    assert first == last
    assert genotypes(1, outside=6) == (first, first), "whatever the caller drew before"
    assert len({genotypes(seed, outside=5)[0].to_json() for seed in range(6)}) > 1
