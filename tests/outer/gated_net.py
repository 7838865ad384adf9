"""A user's model with activations, gates, an output, a branch that is not taken, and a list out of reach."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FORWARDS = {"train": 0, "eval": 0}
"""How often a net has run, by its mode."""


class Excitation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Linear(8, 4), nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.excite(F.relu(self.squeeze(x))))


class GatedNet(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(64, 8), nn.Linear(8, classes)
        self.blocks = nn.Sequential(*(Excitation() for _ in range(5)))
        self.scale = nn.Parameter(torch.zeros(8))
        self.listed = [nn.ReLU()]

    def forward(self, x: Tensor) -> Tensor:
        FORWARDS["train" if self.training else "eval"] += 1
        h = F.gelu(self.stem(x.flatten(1))) * F.softplus(self.scale)
        if len(x) > 10_000:
            h = torch.tanh(h)
        if self.training:
            h = F.silu(h)
        return torch.sigmoid(self.head(self.blocks(h)))


def make_net(classes: int) -> nn.Module:
    return GatedNet(classes)
