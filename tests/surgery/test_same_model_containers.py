"""Activations in containers, loops over containers, and modules that are used in several places."""

from __future__ import annotations

import functools
import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from equivalence import Case, Net, Table, claims
from helper_layers import Base
from torch import Tensor, nn
from torch.nn import functional as F

CONTAINERS, SHARED = Table(), Table()
ONE_OR_ONE_A_TURN = [("relu",), ("relu", "relu")]
"""A call in a loop over two layers may be one site, or one site a turn."""
OR_REFUSED: dict[str, Any] = {"verdict": "either", "reason": "would join"}
"""The module of a site would be one of the layers that the forward goes through."""


class Two(nn.Module):
    """Two layers and two activations in lists."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])
        self.acts = nn.ModuleList([nn.ReLU(), nn.Tanh()])
        self.out = nn.Linear(6, 6)


@CONTAINERS("relu", "tanh")
class Zipped(Two):
    def forward(self, x: Tensor) -> Tensor:
        for layer, act in zip(self.layers, self.acts, strict=True):
            x = act(layer(x))
        return self.out(x)


@CONTAINERS("relu", "tanh")
class Enumerated(Two):
    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = self.acts[i](layer(x)) + i
        return self.out(x)


@CONTAINERS(sites=[("relu", "tanh"), ("tanh", "relu"), ("tanh", "relu", "tanh")])
class ReversedAndSliced(Two):
    def forward(self, x: Tensor) -> Tensor:
        for act in reversed(self.acts):
            x = act(self.layers[-1](x))
        for act in self.acts[1:]:
            x = act(x)
        return self.out(x)


@CONTAINERS(sites=[("relu", "tanh", "gelu"), ("tanh", "relu", "gelu"), ("tanh", "gelu", "relu", "gelu")])
class ByRange(Two):
    def forward(self, x: Tensor) -> Tensor:
        for i in range(len(self.layers)):
            x = F.gelu(self.acts[len(self.acts) - 1 - i](self.layers[i](x)))
        return self.out(x)


@CONTAINERS("relu", "tanh", learns=False)
class DrawnFromAList(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.out(random.choice(list(self.acts))(self.layers[0](x)))


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)]
        self.stack = nn.Sequential(*layers)


@CONTAINERS("relu", "tanh")
class LoopOverASequential(Stack):
    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = []
        for layer in self.stack:
            x = layer(x)
            features.append(x)
        return x, features


@CONTAINERS("relu", "tanh")
class PartsOfASequential(Stack):
    def forward(self, x: Tensor) -> Tensor:
        h = self.stack[:2](x)
        return self.stack[2:].forward(h) + self.stack[-1](h)


@CONTAINERS("relu", "tanh")
class ReducedOverChildren(Stack):
    def forward(self, x: Tensor) -> Tensor:
        return functools.reduce(lambda h, layer: layer(h), self.stack.children(), x)


@CONTAINERS("relu", "tanh", make=lambda kind: kind(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.Tanh()))
class SequentialWithItsOwnForward(nn.Sequential):
    def forward(self, x: Tensor, scale: float = 2.0) -> Tensor:
        return super().forward(x) * scale @ self[0].weight


@CONTAINERS(
    sites=ONE_OR_ONE_A_TURN,
    **OR_REFUSED,
    make=lambda kind: kind(nn.Linear(6, 6), nn.Linear(6, 6)),
)
class SequentialWithACall(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(F.relu(x)) + len(self)
        return x


@CONTAINERS(sites=ONE_OR_ONE_A_TURN, **OR_REFUSED, make=lambda kind: kind([nn.Linear(6, 6), nn.Linear(6, 6)]))
class ListWithACall(nn.ModuleList):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(F.relu(x))
        return self[-1](x)


@CONTAINERS(
    sites=ONE_OR_ONE_A_TURN, **OR_REFUSED, make=lambda kind: kind({"one": nn.Linear(6, 6), "two": nn.Linear(6, 6)})
)
class DictWithACall(nn.ModuleDict):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: layer(F.relu(x)) for name, layer in self.items()}


@CONTAINERS(sites=ONE_OR_ONE_A_TURN, **OR_REFUSED)
class LoopOverChildren(Net):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = layer(F.relu(x))
        return x


@CONTAINERS(sites=ONE_OR_ONE_A_TURN, **OR_REFUSED)
class LoopOverNamedChildren(Net):
    def forward(self, x: Tensor) -> Tensor:
        for name, layer in self.named_children():
            x = layer(F.relu(x) * len(name))
        return x


@CONTAINERS(sites=ONE_OR_ONE_A_TURN, **OR_REFUSED)
class LoopOverTheDictionary(Net):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self._modules.values():
            x = layer(F.relu(x))
        return x


@CONTAINERS(sites=ONE_OR_ONE_A_TURN)
class LayersByName(Net):
    def forward(self, x: Tensor) -> Tensor:
        for name in ("a", "b"):
            x = getattr(self, name)(F.relu(x))
        return self.get_submodule("a")(x)


@CONTAINERS("relu", "tanh")
class KeyedByWords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        keys = ("in", "class", "0", "relu", "lambda", "a-b", "self")
        self.parts = nn.ModuleDict({key: nn.Linear(6, 6) for key in keys})
        self.acts = nn.ModuleDict({"return": nn.Tanh()})

    def forward(self, x: Tensor) -> Tensor:
        x = self.parts["class"](F.relu(self.parts["in"](x)))
        for part in self.parts.values():
            x = part(x)
        return self.parts["0"](self.acts["return"](x))


@CONTAINERS("relu", "tanh")
class KeyChosenAtRunTime(Two):
    def __init__(self) -> None:
        super().__init__()
        self.by_name = nn.ModuleDict(zip(("relu", "tanh"), self.acts, strict=True))
        del self.acts

    def forward(self, x: Tensor) -> Tensor:
        for name in sorted(self.by_name):
            x = self.by_name[name](x)
        return self.out(x)


@CONTAINERS("relu", "tanh")
class NestedContainers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        stage = [nn.Linear(6, 6), nn.ModuleDict({"act": nn.ReLU()})]
        last = nn.Sequential(OrderedDict(act=nn.Tanh(), out=nn.Linear(6, 6)))
        self.stages = nn.ModuleList([nn.ModuleList(stage), last])

    def forward(self, x: Tensor) -> Tensor:
        (layer, acts), last = self.stages
        return last(acts["act"](layer(x)))


@SHARED("relu")
class SharedBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = Base()
        self.two = self.one

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x))


@SHARED("relu")
class BlockOfTwoParents(nn.Module):
    class Parent(nn.Module):
        def __init__(self, block: nn.Module) -> None:
            super().__init__()
            self.block = block

        def forward(self, x: Tensor) -> Tensor:
            return self.block(x) * 2

    def __init__(self) -> None:
        super().__init__()
        block = Base()
        self.left, self.right = self.Parent(block), nn.Sequential(block, block)

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) + self.right(x)


@SHARED("relu", "relu")
class OneModuleCalledTwice(Net):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.act(self.a(self.act(x))))


@SHARED(sites=[("relu",), ("relu", "relu")])
class OneModuleOfTwoNames(Net):
    def __init__(self) -> None:
        super().__init__()
        self.first = self.second = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.second(self.a(self.first(x))))


@SHARED("relu", "relu", "relu")
class OneModuleInManyBlocks(nn.Module):
    class Block(Net):
        def __init__(self, act: nn.Module) -> None:
            super().__init__()
            self.act = act

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.act(self.a(x)))

    def __init__(self) -> None:
        super().__init__()
        act = nn.ReLU()
        self.blocks = nn.ModuleList([self.Block(act), self.Block(act), nn.Sequential(act, nn.Linear(6, 6))])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


@SHARED(sites=[("original",), ("original", "original")], moves=False)
class SharedSlopes(Net):
    """A trained activation that two expressions call keeps one set of slopes."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.PReLU(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.act(self.a(self.act(x))))


@SHARED("relu")
class TiedWeights(Net):
    def __init__(self) -> None:
        super().__init__()
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.relu(self.a(x)), self.b.weight.t())


@SHARED("relu")
class ModuleOutsideTheTree(Net):
    """A block in a tuple is called, but is no child."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = (nn.Linear(6, 6).requires_grad_(False),)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x))) - self.teacher[0](x)


@CONTAINERS.parametrize()
@claims
def test_containers(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


@SHARED.parametrize()
@claims
def test_shared_modules(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


def test_how_many_cases_there_are() -> None:
    assert [
        len(table.cases)
        for table in (
            CONTAINERS,
            SHARED,
        )
    ] == [19, 8]
