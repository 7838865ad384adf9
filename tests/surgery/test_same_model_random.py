"""Random draws, and settings that the training loop changes between calls, stay alive."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from equivalence import Call, Case, Net, Table, batch, claims
from torch import Tensor, nn
from torch.nn import functional as F

RANDOM, SCHEDULED = Table(), Table()


LEGACY: Any = vars(np.random)  # the global generator of NumPy: models of other people draw from it


ONE_OR_ONE_A_TURN = [("relu",), ("relu",) * 4]
"""A call in a loop over four layers may be one site, or one site a turn."""


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))


@RANDOM(sites=ONE_OR_ONE_A_TURN, learns=False)
class DropsLayers(Layers):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            if self.training and random.random() < 0.5:
                continue
            x = F.relu(layer(x)) + x
        return x


@RANDOM(sites=ONE_OR_ONE_A_TURN, learns=False)
class DropsLayersByNumpy(Layers):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            if not self.training or LEGACY["uniform"](0, 1) > 0.5:
                x = x + layer(F.relu(x))
        return x


@RANDOM(sites=ONE_OR_ONE_A_TURN, learns=False)
class DropsLayersByTorch(Layers):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            if not self.training or torch.rand([]) < 0.5:
                x = layer(x.relu())
        return x


@RANDOM("relu", "tanh", learns=False)
class ChoosesABranch(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)) if random.choice([True, False]) else torch.tanh(self.a(x)))


@RANDOM("relu")
class ShufflesLayers(Layers):
    def forward(self, x: Tensor) -> Tensor:
        order = list(self.layers)
        random.shuffle(order)
        for layer in order:
            x = layer(F.relu(x))
        return x


@RANDOM("relu")
class StochasticDepth(Net):
    def forward(self, x: Tensor) -> Tensor:
        kept = torch.empty(x.shape[0], 1).bernoulli_(0.5) / 0.5 if self.training else 1.0
        return x + kept * self.b(F.relu(self.a(x)))


@RANDOM("relu")
class NoiseBesideTheActivation(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x) + torch.randn_like(x))) * torch.rand(1).item()


@RANDOM("relu", "relu")
class DropoutBetween(Net):
    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(F.relu(self.a(x)), p=0.4, training=self.training)
        return F.dropout(self.b(F.relu(x - 0.1)), p=0.2)


@RANDOM("relu")
class GeneratorOfItsOwn(Net):
    def __init__(self) -> None:
        super().__init__()
        self.draws, self.numpy = random.Random(3), np.random.default_rng(3)
        self.generator = torch.Generator().manual_seed(3)

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.randn(6, generator=self.generator) * self.draws.random() + float(self.numpy.random())
        return self.b(F.relu(self.a(x) + noise))


@RANDOM("relu")
class DrawsUntilEnough(Net):
    def forward(self, x: Tensor) -> Tensor:
        draws = 0
        while random.random() < 0.7:
            draws += 1
        return self.b(F.relu(self.a(x))) + draws


@RANDOM("original", moves=False, verdict="either", reason="random|rrelu|RReLU")
class RandomisedSlope(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.rrelu(self.a(x), 0.1, 0.3, self.training))


def rate(model: Any, index: int) -> None:
    model.rate = (0.0, 0.5, 1.0)[index]


@SCHEDULED("relu", schedule=rate)
class DropRate(Net):
    rate = 0.0

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.dropout(F.relu(self.a(x)), self.rate, self.training))


@SCHEDULED("tanh", schedule=rate)
class MixedByTheRate(Net):
    def __init__(self) -> None:
        super().__init__()
        self.rate = 0.0

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.b(torch.tanh(h) * self.rate + h * (1 - self.rate))


@SCHEDULED("relu", schedule=lambda model, index: setattr(model, "temperature", 1.0 + index))
class Temperature(Net):
    temperature = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x) / self.temperature))


@SCHEDULED("original", schedule=rate, moves=False, verdict="either", reason="leaky_relu.*(run time|setting)")
class SlopeInAnAttribute(Net):
    rate = 0.1

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.leaky_relu(self.a(x), self.rate))


def with_a_slope(index: int) -> Call:
    return (batch(index), 0.5 * index + 0.5), {}


@SCHEDULED("original", moves=False, verdict="either", reason="elu.*(run time|setting)", inputs=with_a_slope)
class SlopeAsAnArgument(Net):
    def forward(self, x: Tensor, alpha: float) -> Tensor:
        return self.b(F.elu(self.a(x), alpha=alpha))


@SCHEDULED(
    sites=[("relu",), ("relu", "tanh")],
    moves=False,
    learns=False,
    schedule=lambda model, index: setattr(model, "mode", ("relu", "tanh", "none")[index]),
)
class ModeAsText(Net):
    mode = "relu"

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        if self.mode == "relu":
            h = F.relu(h)
        elif self.mode == "tanh":
            h = torch.tanh(h)
        return self.b(h)


@SCHEDULED(sites=ONE_OR_ONE_A_TURN, learns=False, schedule=lambda model, index: setattr(model, "depth", index + 1))
class DepthOfALoop(Layers):
    depth = 4

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[: self.depth]:
            x = F.relu(layer(x)) + x
        return x


@SCHEDULED("relu", schedule=lambda model, index: model.requires_grad_(index != 1), learns=False)
class FrozenForOneCall(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)))


@SCHEDULED("relu", schedule=lambda model, index: model.block.settings.update(scale=index))
class SettingsInADict(nn.Module):
    class Block(Net):
        def __init__(self) -> None:
            super().__init__()
            self.settings = {"scale": 1}

        def forward(self, x: Tensor) -> Tensor:
            return self.b(F.relu(self.a(x)) * self.settings["scale"])

    def __init__(self) -> None:
        super().__init__()
        self.block = self.Block()

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + 1


def freeze_first_call(model: Any, index: int) -> None:
    model.a.weight.requires_grad_(index > 0)
    model.norm.momentum = 0.1 * (index + 1)
    model.norm.train(index > 1)


@SCHEDULED("relu", schedule=freeze_first_call)
class PartsFrozenByTheLoop(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.norm(self.a(x))))


@SCHEDULED("relu", schedule=lambda model, index: setattr(model, "hook", (lambda h: h * 2) if index else None))
class FunctionSetByTheLoop(Net):
    hook: Callable[[Tensor], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        return self.b(h if self.hook is None else self.hook(h))


def some_steps(index: int) -> Call:
    return (batch(index),), {"steps": index}


@SCHEDULED("relu", inputs=some_steps)
class StepsAsAnArgument(Net):
    def forward(self, x: Tensor, steps: int = 2) -> Tensor:
        for _ in range(steps):
            x = F.relu(self.a(x)) - 0.1
        return self.b(x)


@RANDOM.parametrize()
@claims
def test_random_draws(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


@SCHEDULED.parametrize()
@claims
def test_settings_changed_between_calls(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


def test_how_many_cases_there_are() -> None:
    assert [
        len(table.cases)
        for table in (
            RANDOM,
            SCHEDULED,
        )
    ] == [11, 12]
