"""Contexts of small finished searches, for the tests of derivations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nasact.bilevel import build
from nasact.derivation import DerivationContext
from nasact.supernet import Genotype, Supernet, relax
from nasact.training.loop import FitState, begin_fit, begin_search, search
from nasact.training.metrics import Loss


@dataclass(frozen=True)
class Examples:
    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Adam:
    lr: float = 0.01
    name: str = "adam"
    weight_decay: float = 0.0
    momentum: float = 0.9


class Net(nn.Module):
    """Two sites, BatchNorm and dropout; the second site is a functional call."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.2))
        self.second = nn.Linear(6, 3)
        self.last = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.second(self.first(x))))


def examples(count: int, seed: int) -> Examples:
    """Two classes, by the sign of the first two features' sum."""
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return Examples(x, (x[:, 0] + x[:, 1] > 0).long())


def initial_net(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net()


def begin_net(genotype: Genotype, seed: int) -> FitState:
    return begin_fit(genotype.apply(initial_net(seed)), Adam(), seed=seed)


def context_of(supernet: Supernet, train: Examples, val: Examples, **changes: Any) -> DerivationContext:
    """The context of a search of zero epochs over `supernet`, which keeps the weights that a test has set."""
    loss: Loss = changes.pop("loss", cross_entropy)
    run = begin_search(supernet, build("darts", {"order": 1}), Adam(), seed=5, loss=loss)
    arguments: dict[str, Any] = {
        "begin": begin_net,
        "optimiser": Adam(),
        "batch_size": 16,
        "fit_batch_size": 16,
        "seed": 7,
        **changes,
    }
    return DerivationContext(run=run, train=train, val=val, loss=loss, **arguments)


def search_context(
    level: str = "layer", normaliser: str = "softmax", bank: Sequence[str] = ("relu", "snake", "tanh")
) -> DerivationContext:
    """The context of a real search of one epoch over `Net`."""
    train, val = examples(48, 1), examples(40, 2)
    supernet = relax(
        initial_net(0), list(bank), level=level, normaliser=normaliser, init="uniform", example_input=train.x[:2]
    )
    run = begin_search(supernet, build("darts", {"order": 1, "lr": 0.05}), Adam(), seed=5)
    for _ in search(run, train, val, epochs=1, batch_size=16):
        pass
    return DerivationContext(
        run=run,
        train=train,
        val=val,
        begin=begin_net,
        optimiser=Adam(),
        loss=cross_entropy,
        batch_size=16,
        fit_batch_size=16,
        seed=7,
    )


def put_weights(supernet: Supernet, weights: dict[str, list[float]]) -> None:
    """Set the weights of mixtures with normaliser `free`, where the alphas are the weights."""
    with torch.no_grad():
        for site, row in weights.items():
            supernet.mixtures()[site].alpha.copy_(torch.tensor(row))
