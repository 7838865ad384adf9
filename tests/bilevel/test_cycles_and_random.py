"""`cycles` trains one group at a time, as paper 000 does; `random` draws uniformly and never changes the draw."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from bilevel_problems import batches, tensor_copies, tiny_supernet
from torch import nn
from torch.nn import functional as F

from nasact.bilevel import Batch, build
from nasact.bilevel.snapshot import same_bits
from nasact.bilevel.strategies.cycles import Cycles
from nasact.bilevel.strategies.random import Random
from nasact.errors import StudyError
from nasact.mixture import LEVELS, NORMALISERS
from nasact.supernet import Supernet, derive, relax
from nasact.training.loop import begin_search, search

SPACE = ("relu", "tanh", "silu", "identity")
ALPHAS = {"act1.alpha", "act2.alpha"}


def changed_parameters(strategy: Cycles, progress: float) -> tuple[set[str], set[str]]:
    """Return the alphas and the other parameters that a step at this progress changes."""
    supernet = tiny_supernet()
    state = strategy.init(supernet, torch.optim.Adam(supernet.weight_parameters(), lr=1e-3), F.cross_entropy)
    strategy.step(state, *batches())  # so that the optimiser of w has momentum, which must not move w either
    state.progress = progress
    before = tensor_copies(supernet)
    strategy.step(state, *batches())
    parameters = dict(supernet.named_parameters())
    names = {name for name in parameters if not same_bits(before[name], parameters[name])}
    return names & ALPHAS, names - ALPHAS


@pytest.mark.parametrize("loss", ["train", "val"])
@pytest.mark.parametrize(
    ("progress", "cycle"), [(0.0, 1), (0.3333, 1), (1 / 3, 2), (0.5, 2), (0.6666, 2), (2 / 3, 3), (0.999, 3)]
)
def test_each_third_trains_one_group_and_does_not_change_a_bit_of_the_other(
    progress: float, cycle: int, loss: str
) -> None:
    alphas, weights = changed_parameters(Cycles(loss=loss), progress)
    assert (alphas, bool(weights)) == ((ALPHAS, False) if cycle == 2 else (set(), True))


def test_the_thirds_of_30_epochs_have_10_epochs_each() -> None:
    """As in the paper: no rounding moves the start of a cycle."""
    strategy = Cycles()
    alpha_moves = [strategy.begin <= epoch / 30 < strategy.end for epoch in range(30)]
    assert alpha_moves == [False] * 10 + [True] * 10 + [False] * 10


def fresh() -> nn.Module:
    return tiny_supernet(dropout=0.0, dtype=torch.float64).train()


@pytest.mark.parametrize("loss", ["train", "val"])
def test_a_step_of_alpha_is_a_step_of_adam_on_the_chosen_loss(loss: str) -> None:
    """`w` does not move; the running statistics are updated by the training batch for both losses."""
    strategy, supernet, twin = Cycles(lr=0.02, loss=loss), fresh(), fresh()
    train, val = batches(torch.float64)
    losses = {"train": F.cross_entropy(twin(train.x), train.y), "val": F.cross_entropy(twin(val.x), val.y)}
    found = torch.autograd.grad(losses[loss], twin.arch_parameters())
    state = strategy.init(supernet, torch.optim.SGD(supernet.weight_parameters(), lr=0.1), F.cross_entropy)
    state.progress = 0.5
    report = strategy.step(state, train, val)
    for alpha, start, g in zip(supernet.arch_parameters(), twin.arch_parameters(), found, strict=True):
        after_adam_step = start - 0.02 * g / (g.abs() + 1e-8)
        torch.testing.assert_close(alpha.detach(), after_adam_step.detach(), rtol=1e-9, atol=1e-12)
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
def test_invalid_cycles_are_refused(options: dict, message: str) -> None:
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
def test_every_row_gets_one_function_with_every_normaliser(normaliser: str, level: str) -> None:
    supernet = drawn(3, normaliser=normaliser, level=level, temperature=2.0)
    torch.manual_seed(3)
    for site, p in supernet.weights().items():
        chosen = torch.randint(4, p.shape[:-1])
        assert torch.equal(p.abs().argmax(-1), chosen)
        assert float(p.gather(-1, chosen[..., None]).min()) > 0.9
        assert level == "layer" or len(chosen.unique()) > 1, "each row is drawn"
        gene = derive(supernet).sites[site]
        kept = gene.weights_tensor().argmax(-1)
        names = torch.tensor([SPACE.index(name) for name in gene.functions])
        assert torch.equal(names[kept], chosen)


def test_the_draw_depends_only_on_the_seed_of_the_search_and_training_does_not_change_it() -> None:
    generator = torch.Generator().manual_seed(0)
    split = Batch(torch.randn(32, 4, generator=generator), torch.randint(2, (32,), generator=generator))
    options = SimpleNamespace(name="adam", lr=1e-2, weight_decay=1e-4, momentum=0.9)

    def genotypes(seed: int, caller_seed: int) -> tuple:
        supernet = relax(net(), SPACE)
        torch.manual_seed(caller_seed)
        run = begin_search(supernet, Random(), options, seed=seed)
        first = derive(run.supernet)
        before = tensor_copies(run.supernet)
        assert len(list(search(run, split, split, epochs=2, batch_size=8))) == 2
        after = tensor_copies(run.supernet)
        assert all(same_bits(before[name], after[name]) == ("alpha" in name) for name in before if "temp" not in name)
        return first, derive(run.supernet)

    first, last = genotypes(1, caller_seed=5)
    assert first == last
    assert genotypes(1, caller_seed=6) == (first, first), "independent of what the caller drew before"
    assert len({genotypes(seed, caller_seed=5)[0].to_json() for seed in range(6)}) > 1
