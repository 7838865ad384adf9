"""Small supernets, monitor contexts and histories of one metric, for the tests of monitors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nasact.monitors import MonitorContext
from nasact.supernet import Supernet, relax

BANK = ("relu", "tanh", "identity", "silu")


@dataclass(frozen=True)
class Examples:
    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Epoch:
    epoch: int
    metrics: dict[str, float] = field(default_factory=dict)


class Net(nn.Module):
    """Two sites, BatchNorm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 5))
        self.last = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.last(torch.sigmoid(self.body(x)))
        return output


def supernet(normaliser: str = "softmax", level: str = "layer", bank: Sequence[str] = BANK, **options: Any) -> Supernet:
    """A supernet of `Net` in float64 and train mode; alphas and BatchNorm statistics are not the initial ones."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = relax(Net().double(), bank, level=level, normaliser=normaliser, kernel="reference", **options)
        with torch.no_grad():
            net(torch.randn(32, 4, dtype=torch.float64))
            for alpha in net.arch_parameters():
                alpha.add_(0.3 * torch.randn_like(alpha))
        net.project_()
    return net.train()


def examples(count: int = 24) -> Examples:
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(count, 4, generator=draw, dtype=torch.float64)
    return Examples(x, torch.randint(3, (count,), generator=draw))


def context(net: Supernet, **changes: Any) -> MonitorContext:
    arguments: dict[str, Any] = {"supernet": net, "loss": cross_entropy, "val": examples(), "seed": 11, "epoch": 2}
    return MonitorContext(**{**arguments, "metrics": {"val_accuracy": 0.5}, **changes})


def history(name: str, values: Sequence[float], every: int = 1) -> list[Epoch]:
    """Epochs from 1 on; every `every`-th epoch has the next of `values`."""
    epochs = []
    for index, value in enumerate(values):
        epochs += [Epoch(index * every + rest) for rest in range(1, every)]
        epochs.append(Epoch((index + 1) * every, {name: value}))
    return epochs
