"""Gates of recurrent cells, highways, gated units and attention are kept apart from activations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from equivalence import Call, Case, Net, Table, assert_roles, batch, claims
from torch import Tensor, nn
from torch.nn import functional as F

CELLS = Table()


def state(index: int) -> Call:
    return (batch(index), (batch(index + 1), batch(index + 2))), {}


class Cell(nn.Module):
    def __init__(self, count: int = 4) -> None:
        super().__init__()
        self.x, self.h, self.out = nn.Linear(6, 6 * count), nn.Linear(6, 6 * count), nn.Linear(6, 6)


@CELLS("tanh", "tanh", gates=("sigmoid",) * 3, inputs=state)
class LstmByChunk(Cell):
    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, c = state
        i, f, g, o = (self.x(x) + self.h(h)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return self.out(torch.sigmoid(o) * torch.tanh(c)), c


@CELLS("tanh", "tanh", gates=("sigmoid",) * 3, inputs=state)
class LstmBySplitAndNames(Cell):
    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, c = state
        gates = self.x(x) + self.h(h)
        i, f, g, o = torch.split(gates, 6, dim=1)
        i = torch.sigmoid(i)
        f = torch.sigmoid(f + 1.0)
        g = torch.tanh(g)
        o = torch.sigmoid(o)
        c = f * c + i * g
        h = o * torch.tanh(c)
        return self.out(h), c


@CELLS("tanh", "tanh", gates=("sigmoid",), inputs=state)
class LstmBySlices(Cell):
    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, c = state
        gates = self.x(x) + self.h(h)
        s = gates[:, :18].sigmoid()
        g = gates[:, 18:].tanh()
        c = s[:, :6] * c + s[:, 6:12] * g
        return self.out(s[:, 12:] * c.tanh()), c


@CELLS("tanh", "tanh", gates=("sigmoid",) * 3)
class LstmOverTime(Cell):
    def forward(self, x: Tensor) -> Tensor:
        h = c = torch.zeros(1, 6)
        outputs = []
        for row in x.split(1):
            i, f, g, o = (self.x(row) + self.h(h)).chunk(4, -1)
            i, f, o = i.sigmoid(), f.sigmoid(), o.sigmoid()
            c = f * c + i * g.tanh()
            h = o * c.tanh()
            outputs.append(self.out(h))
        return torch.cat(outputs)


@CELLS("tanh", gates=("sigmoid", "sigmoid"), inputs=lambda i: ((batch(i), batch(i + 1)), {}))
class GruByHand(Cell):
    def __init__(self) -> None:
        super().__init__(3)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        x_r, x_z, x_n = self.x(x).chunk(3, 1)
        h_r, h_z, h_n = self.h(h).chunk(3, 1)
        r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
        n = torch.tanh(x_n + r * h_n)
        return self.out((1 - z) * n + z * h)


@CELLS("relu", gates=("sigmoid",))
class Highway(Net):
    def forward(self, x: Tensor) -> Tensor:
        t = torch.sigmoid(self.b(x))
        return self.a(t * F.relu(self.a(x)) + (1.0 - t) * x)


@CELLS("relu", gates=("sigmoid",))
class HighwayByLerp(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.a(torch.lerp(x, F.relu(self.a(x)), torch.sigmoid(self.b(x))))


@CELLS("relu", gates=("sigmoid",))
class GluByHand(Cell):
    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.x(x).chunk(2, dim=-1)
        return self.out(F.relu(self.out(a * torch.sigmoid(b))))


@CELLS("tanh", gates=("sigmoid",))
class GatedTanh(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.a(torch.tanh(self.a(x)) * torch.sigmoid(self.b(x)))


@CELLS("silu", "gelu")
class GatedBySilu(Net):
    """SwiGLU and GEGLU: their functions are activations."""

    def forward(self, x: Tensor) -> Tensor:
        return self.a(F.silu(self.a(x)) * self.b(x)) + self.b(F.gelu(self.b(x)) * x)


@CELLS("relu", gates=("sigmoid",))
class SigmoidAttention(Net):
    def forward(self, x: Tensor) -> Tensor:
        weights = torch.sigmoid(self.a(x) @ self.b(x).t() / 6**0.5)
        return self.b(F.relu(weights @ x))


@CELLS("tanh", gates=("sigmoid",))
class AttentionPooling(Net):
    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.a(x))
        return self.b((torch.sigmoid(self.b(h)) * h).sum(0))


@CELLS("tanh")
class SoftmaxAttention(Net):
    def forward(self, x: Tensor) -> Tensor:
        weights = self.b(torch.tanh(self.a(x))).softmax(0)
        return self.a((weights * x).sum(0, keepdim=True)) * torch.exp(-weights)


@CELLS(sites=[("relu",), ("relu", "relu")], gates=("sigmoid",))
class RoutedExperts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(6, 2)
        self.experts = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])

    def forward(self, x: Tensor) -> Tensor:
        shares = self.router(x).sigmoid()
        return sum(shares[:, i : i + 1] * F.relu(expert(x)) for i, expert in enumerate(self.experts)) @ x.t()


@CELLS("sigmoid", "sigmoid")
class HiddenSigmoids(Net):
    """A sigmoid between layers is an activation."""

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.sigmoid(self.a(self.b(x.sigmoid()))))


@CELLS("sigmoid", "sigmoid")
class HiddenSigmoidBesideAShortcut(Net):
    def forward(self, x: Tensor) -> Tensor:
        h = x + torch.sigmoid(self.a(x))
        return self.b(F.layer_norm(self.a(h).sigmoid(), (6,)))


@CELLS("sigmoid", "relu")
class SigmoidBothWays(Net):
    """Its result is a factor once, and goes on into a layer: an activation."""

    def forward(self, x: Tensor) -> Tensor:
        g = torch.sigmoid(self.a(x))
        return self.b(g) + self.a(F.relu(x) * g)


@CELLS("relu", "relu")
class LayerScale(Net):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((6,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.gamma * self.a(F.relu(self.b(x)))
        return self.b(F.relu(self.a(x)) * self.gamma)


@CELLS("sigmoid")
class SigmoidTimesAParameter(Net):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((6,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.sigmoid(self.a(x)) * self.gamma * 3)


@CELLS.parametrize()
@claims
def test_gates_of_cells(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


def test_each_gate_has_its_role_and_a_reason() -> None:
    assert_roles(CELLS, "gate", at_least=19)


def test_how_many_cases_there_are() -> None:
    assert len(CELLS.cases) == 19
