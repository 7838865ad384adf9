"""Gates and outputs are told from activations, in nets whose roles a reader can count."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from conformance import check_conformance
from torch import Tensor, nn

pytestmark = pytest.mark.models


class RecurrentNet(nn.Module):
    """A cell of LSTM, written by hand, that runs over the rows of its input (N, T, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Linear(6 + 8, 4 * 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(len(x), 8)
        for row in x.unbind(1):
            i, f, g, o = self.gates(torch.cat([row, h], 1)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.head(h)


class AttentionNet(nn.Module):
    """Attention by sigmoids, and a gated linear unit of silu."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.up = (nn.Linear(6, 6) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.sigmoid(self.query(x) @ self.key(x).transpose(1, 2))
        return nn.functional.silu(weights @ self.value(x)) * self.up(x)


class NoisyNet(nn.Module):
    """A linear layer with noise, whose standard deviation is the softplus of a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.rho = nn.Parameter(torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.relu(x + torch.randn_like(x) * nn.functional.softplus(self.rho)))


# model, its sites by function, its gates by function and role
NETS: dict[str, tuple[nn.Module, dict[str, int], dict[tuple[str, str], int]]] = {
    "lstm_cell": (RecurrentNet(), {"tanh": 2}, {("sigmoid", "gate"): 3}),
    "attention": (AttentionNet(), {"silu": 1}, {("sigmoid", "gate"): 1}),
    "parameter": (NoisyNet(), {"relu": 1}, {("softplus", "parameter"): 1}),
    "final_sigmoid": (
        nn.Sequential(nn.Linear(6, 6), nn.Sigmoid(), nn.Linear(6, 3), nn.Sigmoid()),
        {"sigmoid": 1},
        {("sigmoid", "output"): 1},
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_gates_and_outputs_are_told_from_activations(name: str) -> None:
    model, sites, gates = NETS[name]
    torch.manual_seed(0)
    found = check_conformance(model, (torch.randn(4, 5, 6),)).report
    assert Counter(site.function for site in found.sites) == sites
    assert Counter((gate.function, gate.role) for gate in found.gates) == gates
    assert all(gate.reason for gate in found.gates)
