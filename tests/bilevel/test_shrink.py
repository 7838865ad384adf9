"""`shrink`: which candidates are dropped and when, the search on the remaining ones, and resuming after a drop."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from bilevel_problems import batches
from torch import nn
from torch.nn import functional as F

from nasact.bilevel import SearchState, build
from nasact.bilevel.snapshot import same_bits
from nasact.bilevel.strategies.darts import DARTS
from nasact.bilevel.strategies.shrink import Shrink
from nasact.errors import StudyError
from nasact.mixture import LEVELS, NORMALISERS
from nasact.supernet import Supernet, derive, relax

SPACE = ("relu", "tanh", "silu", "identity", "sigmoid")


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(49, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)
    )


def initial_state_of(strategy: Shrink | DARTS, **options) -> SearchState:
    supernet = relax(net(), SPACE, example_input=torch.zeros(2, 1, 7, 7), **options)
    return strategy.init(supernet, torch.optim.Adam(supernet.weight_parameters(), lr=1e-2), F.cross_entropy)


def step_at(strategy: Shrink, state: SearchState, progress: float) -> None:
    state.progress = progress
    strategy.step(state, *batches(seed=state.step))


def remaining(supernet: Supernet) -> list[int]:
    return [int(mixture.alive.sum()) for mixture in supernet.mixtures().values()]


@pytest.mark.parametrize(
    ("strategy", "k", "expected"),
    [
        (Shrink(), 8, [8, 4, 2, 1]),
        (Shrink(), 5, [5, 3, 2, 1]),
        (Shrink(), 10, [10, 5, 3, 1]),
        (Shrink(), 1, [1, 1, 1, 1]),
        (Shrink(stages=3, last=2), 8, [8, 4, 2]),
        (Shrink(stages=2, last=4), 3, [3, 3]),
        (Shrink(stages=5), 81, [81, 27, 9, 3, 1]),
        (Shrink(counts="5, 3, 1"), 8, [8, 5, 3, 1]),
        (Shrink(counts="5,3,1"), 4, [4, 4, 3, 1]),
    ],
)
def test_number_of_remaining_candidates_in_each_stage(strategy: Shrink, k: int, expected: list[int]) -> None:
    assert [strategy.remaining_in_stage(k, stage) for stage in range(len(expected))] == expected


def test_stages_have_equal_lengths() -> None:
    strategy = Shrink()
    state, counts = initial_state_of(strategy), []
    for progress in (0.0, 0.2499, 0.25, 0.4999, 0.5, 0.7499, 0.75, 0.999):
        step_at(strategy, state, progress)
        counts.append(remaining(state.supernet))
    assert counts == [[k, k] for k in (5, 5, 3, 3, 2, 2, 1, 1)]


def test_a_search_that_skips_stages_drops_their_candidates_too() -> None:
    strategy = Shrink()
    state = initial_state_of(strategy)
    step_at(strategy, state, 0.6)
    assert remaining(state.supernet) == [2, 2]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("normaliser", NORMALISERS.names())
def test_the_candidates_with_the_smallest_mean_weight_are_dropped(normaliser: str, level: str) -> None:
    strategy = Shrink(counts="3, 1", weights_only=0.5)
    state = initial_state_of(strategy, normaliser=normaliser, level=level)
    torch.manual_seed(4)
    with torch.no_grad():
        for alpha in state.supernet.arch_parameters():
            alpha.copy_(torch.rand_like(alpha))
        state.supernet.project_()
    expected = {}
    for site, p in state.supernet.weights().items():
        mean = {name: float(p[..., k].double().abs().mean()) for k, name in enumerate(SPACE)}
        expected[site] = set(sorted(SPACE, key=lambda name, mean=mean: -mean[name])[:3])
    step_at(strategy, state, 0.34)
    for site, mixture in state.supernet.mixtures().items():
        assert {name for name, kept in zip(SPACE, mixture.alive.tolist(), strict=True) if kept} == expected[site]
    step_at(strategy, state, 0.7)
    assert remaining(state.supernet) == [1, 1]
    derived = derive(state.supernet)
    assert all({*gene.functions} <= expected[site] for site, gene in derived.sites.items())


def test_each_stage_first_trains_only_the_weights() -> None:
    strategy = Shrink(lr=0.1, weights_only=0.4)
    for stage in range(3):
        state = initial_state_of(strategy)
        step_at(strategy, state, stage / 4)
        mixture = next(iter(state.supernet.mixtures().values()))
        before, weight = mixture.alpha.detach().clone(), state.supernet.model[1].weight.detach().clone()
        step_at(strategy, state, (stage + 0.399) / 4)
        assert same_bits(mixture.alpha, before)
        assert not same_bits(state.supernet.model[1].weight, weight)
        step_at(strategy, state, (stage + 0.4) / 4)
        moved = mixture.alpha.detach() != before
        assert torch.equal(moved, mixture.alive), "only the alphas of the remaining candidates move"


@pytest.mark.parametrize("order", [1, 2])
def test_before_the_first_drop_it_equals_darts_of_the_same_order_to_the_bit(order: int) -> None:
    ends = []
    for strategy in (Shrink(order=order, weights_only=0.0), DARTS(order=order)):
        state = initial_state_of(strategy)
        torch.manual_seed(1)
        for step in range(3):
            step_at(strategy, state, step / 16)
        ends.append(torch.cat([p.detach().flatten() for p in state.supernet.parameters()]))
    assert same_bits(*ends)


@pytest.mark.parametrize("order", [1, 2])
def test_after_a_drop_it_equals_darts_on_the_bank_of_the_remaining_candidates(order: int) -> None:
    """The hypergradient of the shrunk mixture equals that of a network relaxed with the smaller bank."""
    strategy = Shrink(order=order, counts="3, 1", weights_only=0.0)
    state = initial_state_of(strategy, kernel="reference")
    torch.manual_seed(2)
    with torch.no_grad():
        for alpha in state.supernet.arch_parameters():
            alpha.copy_(torch.tensor([0.0, 1.0, -1.0, 0.5, 2.0]))
    twin = relax(net(), ("tanh", "identity", "sigmoid"), kernel="reference").double()
    step_at(strategy, state, 0.4)
    supernet = state.supernet.double()
    shrunk = [mixture for mixture in supernet.mixtures().values() if mixture.alive.tolist() == [0, 1, 0, 1, 1]]
    assert len(shrunk) == 2
    shrunk_parameters, twin_parameters = dict(supernet.named_parameters()), dict(twin.named_parameters())
    assert set(shrunk_parameters) == set(twin_parameters)
    with torch.no_grad():
        for name, parameter in twin_parameters.items():
            source = shrunk_parameters[name]
            parameter.copy_(source[..., (1, 3, 4)] if "alpha" in name else source)
    train, val = batches(torch.float64)
    found = []
    for searched in (supernet, twin):
        search = strategy.init(searched, torch.optim.SGD(searched.weight_parameters(), lr=0.1), F.cross_entropy)
        torch.manual_seed(0)
        found.append(strategy.alpha_gradient(search, train, val).alpha)
    for whole, small in zip(*found, strict=True):
        torch.testing.assert_close(whole[..., (1, 3, 4)], small, rtol=1e-9, atol=1e-12)
        assert bool((whole[..., (0, 2)] == 0).all())


def test_a_search_saved_after_a_drop_continues_to_the_bit_in_a_new_supernet() -> None:
    strategy = Shrink(weights_only=0.0)
    state = initial_state_of(strategy)
    for progress in (0.1, 0.3, 0.4):
        step_at(strategy, state, progress)
    saved = copy.deepcopy(state.state_dict())
    loaded = initial_state_of(strategy)
    loaded.load_state_dict(saved)
    ends = []
    for continued in (state, loaded):
        torch.manual_seed(8)
        for progress in (0.45, 0.5, 0.6):
            step_at(strategy, continued, progress)
        assert remaining(continued.supernet) == [2, 2]
        ends.append(torch.cat([t.detach().double().flatten() for t in continued.supernet.state_dict().values()]))
    assert same_bits(*ends)
    assert remaining(initial_state_of(strategy).supernet) == [5, 5]


BAD = [
    ({"stages": 1}, "stages must be a whole number of at least 2, but got 1"),
    ({"last": 0}, "last must be a whole number of at least 1, but got 0"),
    ({"weights_only": 1.0}, "weights_only must be at least 0 and below 1, but got 1.0"),
    ({"weights_only": math.nan}, "weights_only must be at least 0 and below 1, but got nan"),
    ({"counts": "3, 5"}, "counts must be falling whole numbers of at least 1, as '5, 3, 1', but got '3, 5'"),
    ({"counts": "5, x"}, "but got '5, x'"),
    ({"counts": "5, 0"}, "but got '5, 0'"),
    ({"counts": "5, 1", "stages": 3}, "give counts, or stages and last, but not both"),
    ({"order": 3}, "order must be 1 or 2, but got 3"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=str)
def test_invalid_stages_are_refused(options: dict, message: str) -> None:
    with pytest.raises(StudyError) as caught:
        build("shrink", options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
