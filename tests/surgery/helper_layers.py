"""Functions and layers that models of other files import: activations behind one or two imports."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACT: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "tanh": torch.tanh}
MODULES: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


def activate(x: Tensor) -> Tensor:
    return F.relu(x)


def linear_relu(x: Tensor, layer: nn.Module) -> Tensor:
    return F.relu(layer(x))


def two_steps(x: Tensor, layer: nn.Module) -> Tensor:
    return torch.tanh(linear_relu(x, layer))


def plain_forward(self: nn.Module, x: Tensor) -> Tensor:
    return self.b(F.relu(self.a(x)))


class Base(nn.Module):
    """A base class of another file with a template method."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

    def hidden(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.hidden(F.relu(self.a(x))))


class Block(Base):
    """A residual block."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)
