"""Methods, helpers and properties reach the same code in the supernet as in the model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import helper_layers
import torch
from equivalence import Case, Net, Table, claims
from helper_layers import Base, activate, linear_relu, plain_forward, two_steps
from torch import Tensor, nn
from torch.nn import functional as F

METHODS = Table()


ONCE_OR_TWICE = [("relu",), ("relu", "relu")]


"""A helper that two expressions call may be one site or two."""


@METHODS("relu", "tanh")
class PrivateMethods(Net):
    def __hidden(self, x: Tensor) -> Tensor:
        return F.relu(self.a(x))

    def _output(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(x))

    def forward(self, x: Tensor) -> Tensor:
        return self._output(self.__hidden(x))


@METHODS(sites=[("relu",), ("relu",) * 3])
class CalledSeveralTimes(Net):
    def hidden(self, x: Tensor) -> Tensor:
        return F.relu(self.a(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.hidden(x) + self.hidden(self.hidden(x)))


@METHODS("relu")
class Recursive(Net):
    def forward(self, x: Tensor, depth: int = 3) -> Tensor:
        return self.b(x) if depth == 0 else self.forward(F.relu(self.a(x)), depth - 1)


@METHODS("relu")
class RecursiveThroughCall(Net):
    def forward(self, x: Tensor, depth: int = 2) -> Tensor:
        return self.b(x) if not depth else self(F.relu(self.a(x)), depth=depth - 1)


@METHODS(sites=ONCE_OR_TWICE)
class StaticOfOneArgument(Net):
    @staticmethod
    def act(x: Tensor) -> Tensor:
        return F.relu(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.act(StaticOfOneArgument.act(self.a(x)) - 0.1))


@METHODS(sites=ONCE_OR_TWICE)
class StaticOfTwoArguments(Net):
    @staticmethod
    def hidden(layer: nn.Module, x: Tensor) -> Tensor:
        return F.relu(layer(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.hidden(self.b, self.hidden(self.a, x)) + self.b(x)


@METHODS("relu", verdict="either", reason="class ?method.*act|act.*class ?method")
class ClassMethod(Net):
    @classmethod
    def act(cls, x: Tensor) -> Tensor:
        return F.relu(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.act(self.a(x)))


@METHODS("relu", verdict="either", reason="property.*act|act.*property")
class PropertyIsAFunction(Net):
    @property
    def act(self) -> Callable[[Tensor], Tensor]:
        return F.relu

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.act(self.a(x)))


@METHODS("relu", verdict="either", reason="property.*hidden|hidden.*property")
class PropertyAppliesOne(Net):
    @property
    def hidden(self) -> Tensor:
        return F.relu(self.a.weight @ self.b.weight + self.last)

    def forward(self, x: Tensor) -> Tensor:
        self.last = x.detach().mean()
        return self.b(x) @ self.hidden


@METHODS("relu")
class PropertyBesideIt(Net):
    @property
    def scale(self) -> float:
        return 0.5 if self.training else 2.0

    @functools.cached_property
    def width(self) -> int:
        return self.a.out_features

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)) * self.scale) / self.width


class Outside(nn.Module):
    """A parent that calls another method of its block, not the forward."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.block = kind()

    def forward(self, x: Tensor) -> Tensor:
        return self.block.decode(self.block.encode(x))


@METHODS("relu", "tanh", make=Outside)
class CalledByItsMethods(Net):
    def encode(self, x: Tensor) -> Tensor:
        return F.relu(self.a(x))

    def decode(self, h: Tensor) -> Tensor:
        return self.b(torch.tanh(h))

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


@METHODS("relu", make=lambda kind: Outside(kind))
class EncodeIsForward(Net):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.a(x))

    encode = forward

    def decode(self, h: Tensor) -> Tensor:
        return self.b(h)


@METHODS("relu")
class ForwardOfAnotherFile(Net):
    forward = plain_forward


@METHODS(sites=ONCE_OR_TWICE)
class HelperOfAnotherFile(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(activate(self.a(helper_layers.activate(x))))


@METHODS("relu", "tanh")
class HelpersInHelpers(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(two_steps(x, self.a))


@METHODS(sites=[("relu",), ("relu", "relu"), ("relu", "relu", "relu")])
class HelperSharedWithAMethod(Net):
    def hidden(self, x: Tensor) -> Tensor:
        return linear_relu(x, self.a)

    def forward(self, x: Tensor) -> Tensor:
        return linear_relu(self.hidden(x), self.b) + linear_relu(x, layer=self.b)


@METHODS("relu")
class BoundMethodInAVariable(Net):
    def hidden(self, x: Tensor) -> Tensor:
        return F.relu(self.a(x))

    def forward(self, x: Tensor) -> Tensor:
        step = self.hidden
        for _ in range(2):
            x = step(x)
        return self.b(x)


@METHODS("relu", verdict="either", reason="hidden|relu")
class MethodByName(Net):
    def hidden_relu(self, x: Tensor) -> Tensor:
        return F.relu(self.a(x))

    def forward(self, x: Tensor) -> Tensor:
        name = "relu"
        return self.b(getattr(self, f"hidden_{name}")(x))


@METHODS("relu")
class ForwardOfAChild(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = Base()

    def forward(self, x: Tensor) -> Tensor:
        return self.block.forward(x) + type(self.block).forward(self.block, x)


@METHODS.parametrize()
@claims
def test_methods_and_helpers(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


def test_how_many_cases_there_are() -> None:
    assert len(METHODS.cases) == 19
