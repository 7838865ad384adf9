"""Networks that another process can import, and their supernets: what tools of torch are tried on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from helper_layers import Base, linear_relu
from torch import Tensor, nn
from torch.nn import functional as F

from nasact.supernet import Genotype, Supernet, relax


class Functional(nn.Module):
    """Calls of functions and methods, a setting, an optional argument."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.activation = nn.Linear(6, 6), nn.Linear(6, 6), F.gelu

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        h = F.leaky_relu(self.a(F.relu(x)), 0.2)
        h = self.activation(self.b(h)).tanh()
        return self.b(h if scale is None else h * scale)


class Loop(nn.Module):
    """Calls in a loop over lists of layers: a site for each turn."""

    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(depth))
        self.acts = nn.ModuleList(nn.Tanh() for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for layer, act in zip(self.layers, self.acts, strict=True):
            x = act(layer(F.relu(x))) + x
        return self.layers[0](x)


class InPlace(nn.Module):
    """In-place activations whose inputs are read again."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.act = nn.Linear(6, 6), nn.Linear(6, 6), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        y = self.act(h)
        z = self.b(y) * 2
        F.relu_(z)
        return self.a(z + h)


def halved(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(forward)
    def wrapper(self: Any, x: Tensor) -> Tensor:
        return 0.5 * forward(self, x)

    return wrapper


class Inherited(Base):
    """super(), a helper of another file, a private method, a static method and a decorator."""

    def __hidden(self, x: Tensor) -> Tensor:
        return torch.tanh(linear_relu(x, self.a))

    @staticmethod
    def swish(x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)

    @halved
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.swish(self.__hidden(x)))


class ParentCall(Base):
    """A forward of the parent's, called by its class."""

    def forward(self, x: Tensor) -> Tensor:
        return Base.forward(self, x) + F.relu(x)


NETS: dict[str, Callable[[], nn.Module]] = {
    "functional": Functional,
    "loop": Loop,
    "in place": InPlace,
    "inherited": Inherited,
    "parent": ParentCall,
}
SITES = {"functional": 4, "loop": 6, "in place": 2, "inherited": 4, "parent": 2}


def make_net(name: str) -> nn.Module:
    torch.manual_seed(0)
    return NETS[name]()


def make_supernet(name: str) -> Supernet:
    """A supernet in the middle of a search: every candidate has a weight."""
    supernet = relax(make_net(name), ["relu", "tanh", "sin"], normaliser="softmax", kernel="reference")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for alpha in supernet.arch_parameters():
            alpha.copy_(torch.randn(alpha.shape, generator=generator))
    return supernet.eval()


def make_derived(name: str) -> nn.Module:
    """The network with softsign at every site."""
    net = make_net(name)
    return Genotype.uniform(net, "softsign").apply(net).eval()


MAKERS: dict[str, Callable[[str], nn.Module]] = {"supernet": make_supernet, "derived": make_derived}


def inputs() -> Tensor:
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
