"""Names that sites might take, and forwards that look at their own modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from equivalence import LOG, Case, Net, Table, claims
from helper_layers import Base
from torch import Tensor, nn
from torch.nn import functional as F

NAMES, INSPECTED = Table(), Table()


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)]
        self.stack = nn.Sequential(*layers)


class Named(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)) - torch.tanh(x))


@NAMES("relu", "tanh")
class ChildrenCalledAsTheirFunctions(Named):
    def __init__(self) -> None:
        super().__init__()
        self.relu, self.relu_1, self.tanh_site = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.tanh = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.relu_1(self.relu(super().forward(x))) * self.tanh


@NAMES("relu", "tanh", "relu")
class MethodsCalledAsTheirFunctions(Net):
    def relu(self, x: Tensor) -> Tensor:
        return F.relu(self.a(x))

    @property
    def tanh(self) -> int:
        return 3

    @staticmethod
    def relu_1(x: Tensor) -> Tensor:
        return x * 2

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.relu_1(torch.tanh(self.relu(x)))) * self.tanh)


@NAMES("relu", "tanh")
class AttributesCalledAsTheirFunctions(Named):
    tanh = "text"

    def __init__(self) -> None:
        super().__init__()
        self.relu: Tensor
        self.register_buffer("relu", torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.relu * len(self.tanh)


@NAMES("relu", "tanh")
class AttributeMadeLater(Named):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        self.last_relu, self.tanh_input = len(x), x.shape
        return y


@NAMES("relu", "gelu")
class ActivationCalledAsAMethod(Net):
    """A child `act` beside a method `_act`."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU()

    def _act(self, x: Tensor) -> Tensor:
        return F.gelu(self.act(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self._act(self.a(x)))


class WithAct(Net):
    def __init__(self, act: nn.Module | None = None) -> None:
        super().__init__()
        self.act = act or nn.ReLU()


@INSPECTED("relu", verdict="either", reason="isinstance|act")
class AsksTheClassOfItsActivation(WithAct):
    def forward(self, x: Tensor) -> Tensor:
        scale = 2**0.5 if isinstance(self.act, nn.ReLU) else 1.0
        return self.b(self.act(self.a(x))) * scale


@INSPECTED("relu", "tanh", verdict="either", reason="isinstance|ReLU|stack")
class CollectsAfterEachRelu(Stack):
    """The feature extractor of perceptual losses."""

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for layer in self.stack:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                found.append(x)
        return [*found, x]


def leaky(kind: Any) -> nn.Module:
    return kind(nn.LeakyReLU(0.3))


@INSPECTED("original", moves=False, verdict="either", reason="negative_slope|act", make=leaky)
class ReadsASetting(WithAct):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.act(self.a(x))) * (1 + self.act.negative_slope**2)


@INSPECTED("original", moves=False, verdict="either", reason="weight|act", make=lambda kind: kind(nn.PReLU()))
class ReadsItsSlopes(WithAct):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.b(self.act(self.a(x))), self.act.weight.abs().sum()


@INSPECTED("relu", verdict="either", reason="activation")
class ComparesAFunction(Net):
    def __init__(self) -> None:
        super().__init__()
        self.activation = F.relu

    def forward(self, x: Tensor) -> Tensor:
        gain = 2.0 if self.activation is F.relu else 1.0
        return self.b(self.activation(self.a(x))) * gain


@INSPECTED("relu")
class CallsForward(WithAct):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.act.forward(self.a(x)))


@INSPECTED("relu")
class NamesTheArgument(WithAct):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.act(input=self.a(x)))


@INSPECTED("relu", "tanh")
class NamesTheArgumentOfAFunction(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(inplace=False, input=self.a(x)) + torch.tanh(input=x))


@INSPECTED("relu")
class NamesItsClass(Net):
    def forward(self, x: Tensor) -> tuple[Tensor, str, bool]:
        name = f"{type(self).__name__} {self.__class__.__qualname__} {type(self).__module__}"
        return self.b(F.relu(self.a(x))), name, isinstance(self, NamesItsClass)


@INSPECTED("relu", verdict="either", reason="type")
class AsksForItsExactClass(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x))) * (2 if type(self) is AsksForItsExactClass else 1)


@INSPECTED("relu", "relu")
class AsksForTheClassOfItsBlocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Base(), nn.Linear(6, 6), Base()])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x) * (2 if isinstance(block, Base) else 1)
        return x


@INSPECTED("relu", "relu", verdict="either", reason="parameters")
class PenaltyOfItsParameters(WithAct):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.b(F.relu(self.act(self.a(x)) - 0.1))
        return y, sum((p.square().sum() for p in self.parameters()), torch.zeros(()))


def in_bfloat16(kind: Any) -> nn.Module:
    return kind().to(torch.bfloat16)


@INSPECTED("relu", make=in_bfloat16, verdict="either", reason="parameters")
class TakesTheDtypeOfItsParameters(nn.Module):
    """The activation comes first, and the parameters of a supernet's sites may have another dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.act, self.a = nn.ReLU(), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        first = next(self.parameters())
        return self.a(self.act(x.to(first.device, first.dtype)))


@INSPECTED("relu", "tanh")
class HooksOfItsOwn(WithAct):
    """Hooks on the activation, before and after, on a layer, and on the model."""

    def __init__(self) -> None:
        super().__init__()
        self.act.register_forward_pre_hook(lambda module, args: LOG.append(("before", len(args), args[0].shape)))
        self.act.register_forward_hook(lambda module, args, out: out * 2)
        self.act.register_full_backward_hook(lambda module, into, out: LOG.append(("backward", len(into), len(out))))
        self.a.register_forward_hook(lambda module, args, kwargs, out: LOG.append(sorted(kwargs)), with_kwargs=True)
        self.register_forward_hook(lambda module, args, out: (LOG.append("model"), out)[1], prepend=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.act(self.a(x))))


@NAMES.parametrize()
@claims
def test_names_that_are_taken(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


@INSPECTED.parametrize()
@claims
def test_forwards_that_look_at_their_modules(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


def test_how_many_cases_there_are() -> None:
    assert [
        len(table.cases)
        for table in (
            NAMES,
            INSPECTED,
        )
    ] == [5, 14]
