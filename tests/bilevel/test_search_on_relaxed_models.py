"""Strategies on supernets that `relax` returns: every normaliser, every level, betas among the weights."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from bilevel_problems import batches, normaliser_for, relative_error
from torch import nn
from torch.nn import functional as F

from nasact.bilevel import HYPERGRADIENTS, STRATEGIES, SupernetProblem, build, check_search_moves
from nasact.bilevel.differentiable_optimiser import inner_step
from nasact.bilevel.strategies import alpha_moves_from
from nasact.mixture import LEVELS, NORMALISERS
from nasact.supernet import Supernet, relax

SPACE = ("relu", "tanh", "silu", "identity")


def small_cnn(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2),
        nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3),
    )  # fmt: skip


def relaxed(**options) -> Supernet:
    return relax(small_cnn(), SPACE, example_input=torch.zeros(2, 1, 7, 7), **options)


def test_normalisers_levels_and_strategies_are_registered() -> None:
    assert len(NORMALISERS) >= 11
    assert len(LEVELS) >= 3
    assert len(STRATEGIES) >= 11


@pytest.mark.parametrize("normaliser", NORMALISERS.names())
def test_order_2_equals_the_oracle_with_every_normaliser(normaliser: str) -> None:
    supernet = relaxed(normaliser=normaliser, level="channel").double()
    train, val = batches(torch.float64)
    optimiser = torch.optim.SGD(supernet.weight_parameters(), lr=0.1, momentum=0.9)
    problem = SupernetProblem.draw(supernet, F.cross_entropy, train, val)
    inner = inner_step(optimiser, supernet.weight_parameters())
    found, oracle = (
        HYPERGRADIENTS.get(name)(problem, problem.w, problem.alpha, inner).alpha
        for name in ("second_order", "unrolled")
    )
    assert relative_error(found, oracle) < 1e-9


class Attention(nn.Module):
    """Attention without dropout: torch uses its fused kernel, which has no second derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.MultiheadAttention(7, 1, batch_first=True)
        self.activation = nn.GELU()
        self.head = nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.squeeze(1)
        return self.head(self.activation(x + self.block(x, x, x, need_weights=False)[0]).mean(1))


@pytest.mark.parametrize("name", STRATEGIES.names())
def test_attention_can_be_searched_at_second_order(name: str) -> None:
    torch.manual_seed(0)
    strategy = build(name, {})
    supernet = relax(Attention(), SPACE, normaliser=normaliser_for(strategy))
    state = strategy.init(supernet, torch.optim.Adam(supernet.weight_parameters(), lr=1e-2), F.cross_entropy)
    check_search_moves(strategy, state, *batches())


@pytest.mark.parametrize("init", ["uniform", "original"])
@pytest.mark.parametrize(
    ("name", "normaliser"),
    [(name, n) for name, cls in STRATEGIES.items() for n in cls.normalisers or NORMALISERS.names()],
)
def test_search_moves_with_every_normaliser_and_start(name: str, normaliser: str, init: str) -> None:
    has_lr = "lr" in {option.name for option in dataclasses.fields(STRATEGIES.get(name))}
    strategy = build(name, {"lr": 0.05} if has_lr else {})
    supernet = relaxed(normaliser=normaliser, init=init)
    state = strategy.init(supernet, torch.optim.Adam(supernet.weight_parameters(), lr=1e-2), F.cross_entropy)
    check_search_moves(strategy, state, *batches())
    before = {site: weights.clone() for site, weights in supernet.weights().items()}
    moves_from = alpha_moves_from(strategy)
    state.progress = moves_from or 0.0
    for _ in range(3):
        strategy.step(state, *batches())
    after = supernet.weights()
    moved = any(not torch.equal(before[site], after[site]) for site in before)
    assert moved == (moves_from is not None)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", STRATEGIES.names())
def test_search_moves_at_every_level(name: str, level: str) -> None:
    strategy = build(name, {})
    supernet = relaxed(level=level, normaliser=normaliser_for(strategy))
    state = strategy.init(supernet, torch.optim.Adam(supernet.weight_parameters(), lr=1e-2), F.cross_entropy)
    check_search_moves(strategy, state, *batches())


@pytest.mark.parametrize("name", STRATEGIES.names())
def test_betas_of_candidates_are_trained_as_weights(name: str) -> None:
    strategy = build(name, {})
    supernet = relax(small_cnn(), ("relu", "prelu", "snake"), normaliser=normaliser_for(strategy))
    state = strategy.init(supernet, torch.optim.Adam(supernet.weight_parameters(), lr=1e-2), F.cross_entropy)
    betas = {key: beta.detach().clone() for key, beta in supernet.named_parameters() if "betas" in key}
    draws_one = NORMALISERS.get(normaliser_for(strategy)).draws_one  # a function that is not drawn has no gradient
    for _ in range(20 if draws_one else 1):
        strategy.step(state, *batches())
    assert len(betas) == 4
    assert all(not torch.equal(beta, supernet.get_parameter(key)) for key, beta in betas.items())
