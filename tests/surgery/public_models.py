"""Small models in the way of public repositories, as source texts: their spellings are part of the tests."""

from __future__ import annotations

from typing import Any

from equivalence import Table, written

HEADER = """
import collections, dataclasses, enum, functools, math, types, typing
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from equivalence import Net
class MemoryEfficient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)
    @staticmethod
    def backward(ctx, g):
        s = torch.sigmoid(ctx.saved_tensors[0])
        return g * s * (1 + ctx.saved_tensors[0] * (1 - s))
class Overwrites(nn.Module):
    def forward(self, x):
        x += 1
        return x
class Model(Net):
    def forward(self, x):
        return self.b(self.hidden(self.a(x), x))
"""


def drop_more(model: Any, index: int) -> None:
    model.drop_path_prob = 0.3 * index


MODELS = Table()
MODELS.add(
    "cell of a searched network",
    lambda: written(
        """
def drop_path(x, probability):
    keep = 1.0 - probability
    mask = torch.empty(x.shape[0], 1).bernoulli_(keep)
    x.div_(keep)
    x.mul_(mask)
    return x
class Operation(nn.Module):
    def __init__(self):
        super().__init__()
        self.op = nn.Sequential(nn.ReLU(inplace=False), nn.Linear(6, 6, bias=False), nn.BatchNorm1d(6))
    def forward(self, x):
        return self.op(x)
class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop_path_prob, self.indices = 0.0, (0, 1, 1, 2)
        self.before = Operation()
        self.ops = nn.ModuleList([Operation(), nn.Identity(), nn.Identity(), Operation()])
    def forward(self, x):
        states = [x, self.before(x)]
        for step in range(2):
            ends = []
            for index in (2 * step, 2 * step + 1):
                op = self.ops[index]
                end = op(states[self.indices[index]])
                if self.training and self.drop_path_prob > 0 and not isinstance(op, nn.Identity):
                    end = drop_path(end, self.drop_path_prob)
                ends.append(end)
            states += [ends[0] + ends[1]]
        return torch.cat(states[2:], 1)""",
        HEADER,
    ).M(),
    *("relu", "relu", "relu"),
    schedule=drop_more,
)
MODELS.add(
    "memory-efficient dense layers",
    lambda: written(
        """
from torch.utils.checkpoint import checkpoint
class Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.relu, self.linear = nn.BatchNorm1d(width), nn.ReLU(inplace=True), nn.Linear(width, 2)
    def bottleneck(self, inputs):
        return self.linear(self.relu(self.norm(torch.cat(inputs, 1))))
    def forward(self, inputs):
        if not any(each.requires_grad for each in inputs):
            return self.bottleneck(inputs)
        def closure(*inputs):
            return self.bottleneck(inputs)
        return checkpoint(closure, *inputs, use_reentrant=False)
class M(nn.ModuleDict):
    def __init__(self):
        super().__init__({f"layer{i}": Layer(6 + 2 * i) for i in range(2)})
    def forward(self, x):
        features = [x]
        for _, layer in self.items():
            features.append(layer(features))
        return torch.cat(features, 1)""",
        HEADER,
    ).M(),
    *("relu", "relu"),
    moves=False,
)
MODELS.add(
    "attention gates in a decoder",
    lambda: written(
        """
class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.g, self.x, self.relu = nn.Linear(6, 3), nn.Linear(6, 3), nn.ReLU(inplace=True)
        self.psi = nn.Sequential(nn.Linear(3, 1), nn.Sigmoid())
    def forward(self, g, x):
        psi = self.relu(self.g(g) + self.x(x))
        return x * self.psi(psi)
class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up = (nn.ModuleList(nn.Linear(6, 6) for _ in range(2)) for _ in range(2))
        self.gates, self.last = nn.ModuleList(Gate() for _ in range(2)), nn.Linear(6, 1)
    def forward(self, x):
        skips = []
        for layer in self.down:
            x = F.relu(layer(x), inplace=True)
            skips.append(x)
        for layer, gate in zip(self.up, self.gates):
            skip = skips.pop()
            x = F.silu(layer(x + gate(x, skip)), inplace=True)
        return self.last(x).sigmoid()""",
        HEADER,
    ).M(),
    *("relu", "relu", "relu", "silu", "relu", "silu"),
    gates=("sigmoid", "sigmoid", "sigmoid"),
)
MODELS.add(
    "coupling layers of a flow",
    lambda: written(
        """
class Coupling(nn.Module):
    def __init__(self, flip):
        super().__init__()
        self.net, self.flip = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 6)), flip
    def forward(self, x, reverse=False):
        a, b = x.chunk(2, 1)
        if self.flip:
            a, b = b, a
        s, t = self.net(a).chunk(2, 1)
        s = torch.tanh(s)
        b = (b - t) * torch.exp(-s) if reverse else b * torch.exp(s) + t
        return torch.cat([b, a] if self.flip else [a, b], 1), s.sum(1)
class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.flows = nn.ModuleList([Coupling(False), Coupling(True)])
    def forward(self, x):
        total = torch.zeros(x.shape[0])
        for flow in self.flows:
            x, change = flow(x)
            total = total + change
        return x, total""",
        HEADER,
    ).M(),
    *("relu", "tanh", "relu", "tanh"),
)
MODELS.add(
    "graph attention with heads in a list",
    lambda: written(
        """
class Attention(nn.Module):
    def __init__(self, concat=True):
        super().__init__()
        self.w, self.left, self.right = nn.Linear(6, 6, bias=False), nn.Linear(6, 1), nn.Linear(6, 1)
        self.leaky_relu, self.concat = nn.LeakyReLU(0.2), concat
    def forward(self, x):
        h = self.w(x)
        e = self.leaky_relu(self.left(h) + self.right(h).T)
        e = torch.where(x @ x.T > 0, e, -9e15 * torch.ones_like(e))
        h = F.dropout(F.softmax(e, dim=1), 0.1, training=self.training) @ h
        return F.elu(h) if self.concat else h
class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = [Attention() for _ in range(2)]
        for i, head in enumerate(self.heads):
            self.add_module(f"head_{i}", head)
        self.out = Attention(concat=False)
    def forward(self, x):
        x = sum(head(x) for head in self.heads)
        return F.log_softmax(F.elu(self.out(x)), dim=1)""",
        HEADER,
    ).M(),
    *("original", "elu", "original", "elu", "original", "elu"),
)
MODELS.add(
    "experts with index_add",
    lambda: written(
        """
class Expert(nn.Module):
    def __init__(self):
        super().__init__()
        self.w1, self.w2, self.w3, self.act = nn.Linear(6, 8), nn.Linear(8, 6), nn.Linear(6, 8), F.silu
    def forward(self, x):
        return self.w2(self.act(self.w1(x)) * self.w3(x))
class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.router, self.experts = nn.Linear(6, 3), nn.ModuleList(Expert() for _ in range(3))
    def forward(self, x):
        weights, chosen = F.softmax(self.router(x), dim=1).topk(2, dim=-1)
        result = torch.zeros_like(x)
        for number in range(3):
            expert = self.experts[number]
            row, rank = torch.where(chosen == number)
            result.index_add_(0, row, expert(x[row]) * weights[row, rank, None])
        return result""",
        HEADER,
    ).M(),
    *("silu", "silu", "silu"),
    learns=False,
)
MODELS.add(
    "gated convolutions that are cut to one length",
    lambda: written(
        """
class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.filters, self.gates, self.skips = (nn.ModuleList(nn.Linear(6, 6) for _ in range(2)) for _ in range(3))
        self.end = nn.Linear(6, 6)
    def forward(self, x):
        skip = 0
        for i in range(2):
            residual = x
            x = torch.tanh(self.filters[i](x)) * torch.sigmoid(self.gates[i](x))
            s = self.skips[i](x)
            try:
                skip = skip[:, -s.size(1):]
            except TypeError:
                skip = 0
            skip, x = s + skip, x + residual
        return self.end(F.relu(skip))""",
        HEADER,
    ).M(),
    *("tanh", "tanh", "relu"),
    gates=("sigmoid", "sigmoid"),
)
MODELS.add(
    "student and teacher",
    lambda: written(
        """
import copy
class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.student = nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 6))
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
    def forward(self, x):
        with torch.no_grad():
            if self.training:
                for mine, other in zip(self.teacher.parameters(), self.student.parameters()):
                    mine.data.mul_(0.9).add_(other.data, alpha=0.1)
            target = self.teacher(x)
        return self.student(x), target""",
        HEADER,
    ).M(),
    *("relu", "relu"),
    learns=False,
)
MODELS.add(
    "exits that data chooses",
    lambda: written(
        """
class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks, self.exits = (nn.ModuleList(nn.Linear(6, 6) for _ in range(3)) for _ in range(2))
    def forward(self, x):
        outputs = []
        for block, end in zip(self.blocks, self.exits):
            x = torch.relu(block(x))
            outputs.append(end(x))
            if not self.training and outputs[-1].softmax(-1).max() > 0.5:
                return outputs[-1]
        return outputs if self.training else outputs[-1]""",
        HEADER,
    ).M(),
    *("relu", "relu", "relu"),
)
MODELS.add(
    "split and extended list",
    lambda: written(
        """
class Conv(nn.Module):
    default_act = nn.SiLU()
    def __init__(self, i, o):
        super().__init__()
        self.conv, self.bn, self.act = nn.Linear(i, o), nn.BatchNorm1d(o), self.default_act
    def forward(self, x):
        return self.act(self.bn(self.conv(x)))
class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.cv1, self.cv2, self.m = Conv(6, 6), Conv(12, 6), nn.ModuleList(Conv(3, 3) for _ in range(2))
    def forward(self, x):
        y = list(self.cv1(x).chunk(2, 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))""",
        HEADER,
    ).M(),
    *("silu", "silu", "silu", "silu"),
)
