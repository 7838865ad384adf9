"""Buffers and attributes that a forward writes stay alive."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from equivalence import LOG, Case, Net, Table, claims
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

STATE = Table()


@STATE("relu")
class CountsInABuffer(Net):
    def __init__(self) -> None:
        super().__init__()
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add_(1)
        return self.b(F.relu(self.a(x))) / self.seen


@STATE("relu")
class AssignsABuffer(CountsInABuffer):
    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.seen + 1
        self.seen += 1
        return self.b(F.relu(self.a(x))) / self.seen


@STATE("relu")
class CountsInAnAttribute(Net):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.b(F.relu(self.a(x))) * self.calls


@STATE("relu")
class EverySecondCall(Net):
    def __init__(self) -> None:
        super().__init__()
        self.step = 0

    def forward(self, x: Tensor) -> Tensor:
        self.step += 1
        return self.b(F.relu(self.a(x))) if self.step % 2 else self.b(self.a(x))


@STATE("relu")
class KeepsItsFeatures(Net):
    """Keeps tensors with a gradient: a copy of the model after a pass must still be possible."""

    def forward(self, x: Tensor) -> Tensor:
        self.features = F.relu(self.a(x))
        self.norm = self.features.norm()
        return self.b(self.features)


@STATE("relu")
class AppendsToLists(Net):
    def __init__(self) -> None:
        super().__init__()
        self.means: list[float] = []
        self.last: deque[Tensor] = deque(maxlen=2)
        self.by_shape: dict[tuple[int, ...], Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        self.means.append(h.mean().item())
        self.last.append(h.detach())
        mask = self.by_shape.setdefault(tuple(x.shape), torch.ones_like(x))
        return self.b(h * mask) + len(self.means)


@STATE("relu")
class ScratchTensor(Net):
    def __init__(self) -> None:
        super().__init__()
        self.scratch = torch.zeros(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.scratch.mul_(0.5).add_(x)
        return self.b(F.relu(self.a(x))) + self.scratch


@STATE("relu")
class ReusesItsLastOutput(Net):
    def __init__(self) -> None:
        super().__init__()
        self.state: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        before = torch.zeros_like(x) if self.state is None else self.state
        y = self.b(F.relu(self.a(x + before)))
        self.state = y.detach()
        return y


@STATE("relu")
class BufferMadeInForward(Net):
    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "table"):
            self.register_buffer("table", torch.arange(6.0), persistent=False)
        return self.b(F.relu(self.a(x) + self.table))


@STATE("relu")
class RunningMeanByHand(Net):
    def __init__(self) -> None:
        super().__init__()
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(h.mean(0), 0.1)
        return self.b(h - self.mean)


@STATE("relu")
class RingBuffer(Net):
    """The queue of a contrastive model."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: Tensor
        self.register_buffer("queue", torch.zeros(8, 6))
        self.position = 0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.b(F.relu(self.a(x)))
        scores = h @ self.queue.clone().T
        self.queue[self.position : self.position + 4] = h.detach()
        self.position = (self.position + 4) % 8
        return h, scores


@STATE("relu")
class NumberedAttributes(Net):
    def forward(self, x: Tensor) -> Tensor:
        for i in range(2):
            setattr(self, f"mean_{i}", float(x.detach().mean()) * i)
        self.__dict__["extra"] = self.mean_1
        return self.b(F.relu(self.a(x))) + self.extra


@STATE("relu", "relu")
class AuxiliaryLoss(nn.Module):
    """A child leaves its loss in an attribute, which the parent reads."""

    class Gate(Net):
        loss: Any = 0.0

        def forward(self, x: Tensor) -> Tensor:
            h = F.relu(self.a(x))
            self.loss = h.square().mean()
            return self.b(h)

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(self.Gate(), self.Gate())

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        y = self.blocks(x)
        return y, sum(block.loss for block in self.blocks)


@STATE("relu", "tanh")
class ChangesTheModeOfAChild(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        self.norm.eval()
        h = self.norm(F.relu(self.a(x)))
        self.norm.train(self.training)
        return self.b(self.norm(torch.tanh(h)))


@STATE("relu", "relu")
class BatchNormAround(Net):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.BatchNorm1d(6), nn.BatchNorm1d(6, momentum=None)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.two(F.relu(self.one(self.a(x))))))


@STATE("relu")
class Parametrised(Net):
    def __init__(self) -> None:
        super().__init__()
        self.a = parametrizations.weight_norm(self.a)
        self.b = parametrizations.spectral_norm(self.b)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)))


@STATE("relu")
class WeightComputedBeforeEachPass(Net):
    """The weight of a layer is computed from others before each pass, as the old weight_norm does."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(6, 1))
        self.raw = nn.Parameter(self.a.weight.detach().clone())
        del self.a.weight
        self.a.weight = self.raw * self.gain

    def forward(self, x: Tensor) -> Tensor:
        self.a.weight = self.raw * self.gain
        return self.b(F.relu(self.a(x)))


@dataclass
class Statistics:
    calls: int = 0
    mean: Any = None


@STATE("relu")
class RecordInAnAttribute(Net):
    def __init__(self) -> None:
        super().__init__()
        self.statistics = Statistics()

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        self.statistics.calls += 1
        self.statistics.mean = h.mean().item()
        return self.b(h)


CALLS = {"count": 0}


def uncounted() -> None:
    CALLS["count"] = 0


@STATE("relu", observe=lambda: dict(CALLS), reset=uncounted)
class CountsOutside(Net):
    def forward(self, x: Tensor) -> Tensor:
        CALLS["count"] += 1
        LOG.append(("forward", CALLS["count"], tuple(x.shape)))
        return self.b(F.relu(self.a(x))) * CALLS["count"]


def logged_relu(x: Tensor) -> Tensor:
    LOG.append("relu")
    return F.relu(x)


@STATE(sites=[("relu",), ("relu", "relu")])
class HelperThatCounts(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(logged_relu(self.a(logged_relu(x))))


@STATE.parametrize()
@claims
def test_state_written_in_forward(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


def test_how_many_cases_there_are() -> None:
    assert len(STATE.cases) == 20
