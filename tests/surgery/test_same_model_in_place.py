"""In-place activations: whoever reads the overwritten tensor, through whatever alias, reads what the model wrote."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from equivalence import CLAIMS, Case, Net, Table, claims, written
from torch import Tensor, nn
from torch.nn import functional as F

ALIASES, MODULES, BLOCKS = Table(), Table(), Table()

LINES: dict[str, tuple[str, tuple[str, ...]]] = {
    # name: (statements after `h = self.a(x)`, functions of the sites); the last statement sets y
    "method": ("h.relu_(); y = h", ("relu",)),
    "function": ("F.relu_(h); y = h", ("relu",)),
    "torch function": ("torch.relu_(h); y = h", ("relu",)),
    "keyword": ("F.relu(h, inplace=True); y = h", ("relu",)),
    "positional": ("F.relu(h, True); y = h", ("relu",)),
    "module made here": ("nn.ReLU(inplace=True)(h); y = h", ("relu",)),
    "result and input": ("g = F.relu(h, inplace=True); y = g + h", ("relu",)),
    "input read before": ("g = h * 2; F.relu_(h); y = g + h", ("relu",)),
    "alias read": ("g = h; h.relu_(); y = g * 2", ("relu",)),
    "slice": ("h[:, :3].relu_(); y = h", ("relu",)),
    "slice of a slice": ("h[1:][:, 2:].tanh_(); y = h", ("tanh",)),
    "index": ("h[0].relu_(); h[..., -1].tanh_(); y = h", ("relu", "tanh")),
    "view": ("h.view(-1).relu_(); y = h", ("relu",)),
    "view before": ("v = h.view(2, 12); h.relu_(); y = v.view(4, 6)", ("relu",)),
    "view after": ("v = h.view(2, 12); F.relu_(v); y = h + v.view(4, 6)", ("relu",)),
    "transposed": ("h.t().relu_(); y = h", ("relu",)),
    "chunk": ("p, q = h.chunk(2, 1); q = torch.tanh_(q.clone()); y = torch.cat([p.relu(), q], 1)", ("tanh", "relu")),
    "narrow": ("h.narrow(1, 2, 3).sigmoid_(); y = h", ("sigmoid",)),
    "select and squeeze": ("h.select(1, 0).relu_(); h.unsqueeze(0).squeeze(0).tanh_(); y = h", ("relu", "tanh")),
    "detached": ("h.detach().relu_(); y = h.clone()", ("relu",)),
    "contiguous": ("h.contiguous().relu_(); y = h", ("relu",)),
    "reshape": ("h.reshape(24).relu_(); y = h", ("relu",)),
    "to": ("h.to(torch.float32).relu_(); y = h", ("relu",)),
    "chained": ("y = h.relu_().mul_(2).tanh_() + h", ("relu", "tanh")),
    "twice": ("h.relu_(); h.sub_(0.1).relu_(); y = h", ("relu", "relu")),
    "settings": ("F.leaky_relu_(h, 0.2); F.elu(h, 0.5, inplace=True); y = h", ("original", "original")),
    "hardtanh": ("F.hardtanh_(h, 0.0, 6.0); y = h", ("relu6",)),
    "in an expression": ("y = torch.cat([h.relu_(), h], 1)[:, :6] + h", ("relu",)),
    "input of the caller": ("x.relu_(); y = self.a(x)", ("relu",)),
    "input through a list": ("parts = [h, h]; parts[0].relu_(); y = parts[1]", ("relu",)),
    "in a loop": ("for i in range(len(h)): h[i].relu_()\n        y = h", ("relu",)),
    "in a helper": ("overwrite(h); y = h", ("relu",)),
    "unbound": ("for row in h.clone().unbind(0): row.detach().relu_()\n        y = h", ("relu",)),
    "under no_grad": ("h = h.detach()\n        with torch.no_grad(): h.relu_()\n        y = h", ("relu",)),
    "saved result": ("g = h.exp(); h.relu_(); y = g + h", ("relu",)),
    "on an expanded tensor": ("g = h.mean(0).relu_().expand(4, 6); y = g + h", ("relu",)),
    "attribute": ("self.kept = h; self.kept.relu_(); y = h", ("relu",)),
    "item of a dictionary": ("d = {'h': h}; d['h'].relu_(); y = h", ("relu",)),
    "augmented": ("h += F.relu_(h); y = h", ("relu",)),
}
WITHOUT_ALPHA_GRADIENT = ("detached", "under no_grad", "unbound")
NOT_TRAINABLE = ("index", "select and squeeze", "chained", "twice", "settings", "in a loop", "augmented")
"""The model itself overwrites a result that its own backward pass needs."""

HEADER = """
import torch
from torch import nn
from torch.nn import functional as F
from equivalence import Net
def overwrite(h, *, by=0.0):
    return (h - by if by else h).relu_()
"""


def build(lines: str) -> nn.Module:
    text = f"""
class InPlace(Net):
    def forward(self, x):
        h = self.a(x)
        {lines}
        return self.b(y)"""
    return written(text, HEADER).InPlace()


for line_name, (lines, functions) in LINES.items():
    learns, backward = line_name not in WITHOUT_ALPHA_GRADIENT, line_name not in NOT_TRAINABLE
    options: dict[str, Any] = {"learns": learns, "backward": backward, "moves": line_name != "unbound"}
    ALIASES.add(line_name, functools.partial(build, lines), *functions, **options)


class Overwriting(Net):
    """A module in place, with a shortcut that reads what it has overwritten."""

    def __init__(self, *before: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*before, nn.ReLU(inplace=True), nn.Linear(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(self.body(x) + x)


class Pass(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class ViewOf(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1)


PASSING: dict[str, Callable[[], list[nn.Module]]] = {
    "nothing": list,
    "Identity": lambda: [nn.Identity()],
    "Dropout in eval": lambda: [nn.Dropout(0.5)],
    "Dropout of 0": lambda: [nn.Dropout(0.0)],
    "Flatten": lambda: [nn.Flatten()],
    "Unflatten": lambda: [nn.Unflatten(1, (2, 3)), nn.Flatten()],
    "empty Sequential": lambda: [nn.Sequential(), nn.Identity()],
    "module that returns its input": lambda: [Pass()],
    "module that returns a view": lambda: [ViewOf()],
    "another in place": lambda: [nn.Hardtanh(-2.0, 2.0, inplace=True)],
    "Linear": lambda: [nn.Linear(6, 6)],
}
for passing, made in PASSING.items():
    functions = ("original", "relu") if passing == "another in place" else ("relu",)
    MODULES.add(passing, lambda made=made: Overwriting(*made()), *functions)


@MODULES("relu", "relu")
class UsedTwice(Net):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        y = self.b(self.act(h))
        return self.act(y) + h


@MODULES(sites=[("relu",), ("relu",) * 3])
class UsedInALoop(Net):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        kept = []
        for layer in (self.a, self.b, self.a):
            h = layer(x)
            kept.append(h)
            x = self.act(h)
        return self.b(x), kept


@MODULES("relu")
class ResultIgnored(Net):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        self.act(x)
        return self.b(x)


@MODULES("relu")
class CallerReadsItsInput(nn.Module):
    """The block overwrites the input of its parent, which reads it afterwards."""

    class Block(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.b(F.relu_(x))

    def __init__(self) -> None:
        super().__init__()
        self.block = self.Block()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = x * 2
        return self.block(h) + h, h


@MODULES(sites=[], verdict="either", reason="buffer|parameter|no activation site", moves=False)
class OverwritesABuffer(Net):
    def __init__(self) -> None:
        super().__init__()
        self.state: Tensor
        self.register_buffer("state", torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.state.add_(x.mean(0)).relu_()
        return self.b(self.a(x) + self.state)


@MODULES("relu")
class HookKeepsTheTensor(Net):
    """A forward hook keeps the tensor that the activation overwrites."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)
        self.a.register_forward_hook(self.keep)

    @staticmethod
    def keep(module: Any, args: Any, out: Tensor) -> None:
        module.kept = [out]

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.act(self.a(x)))
        return y + self.a.kept[0].sum()


@MODULES("relu")
class HookAfterTheActivation(Net):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)
        self.act.register_forward_hook(lambda module, args, out: (out + args[0]) / 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.act(self.a(x)))


@MODULES("relu", "relu")
class BatchNormBefore(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.act = nn.BatchNorm1d(6), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.a(x))
        y = self.norm(self.b(self.act(h)))
        y += h
        return self.b(self.act(y))


class PreActivation(nn.Module):
    """He et al. 2016: the shortcut takes the result of the first, in-place activation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bn, self.conv = nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        out = self.relu(x)
        out = self.relu(self.bn(self.conv(out)))
        return out + shortcut


def images(index: int) -> Any:
    return (torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(index)),), {}


BLOCKS.add(
    "pre-activation",
    lambda: nn.Sequential(nn.Conv2d(3, 4, 3), PreActivation(4), PreActivation(4), nn.Conv2d(4, 2, 1)),
    *("relu",) * 4,
    inputs=images,
)
BLOCKS.add(
    "channels last",
    lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(True), nn.Conv2d(4, 2, 1)).to(memory_format=torch.channels_last),
    "relu",
    inputs=lambda index: ((images(index)[0][0].to(memory_format=torch.channels_last),), {}),
)
BLOCKS.add("the first layer", lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 6)), "relu")
BLOCKS.add("the last layer", lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True)), "relu")
BLOCKS.add(
    "two in a row",
    lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(True), nn.ELU(inplace=True), nn.Linear(6, 6)),
    *("relu", "elu"),
    backward=False,
)
BLOCKS.add(
    "checkpointed by a parent",
    lambda: nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.Identity(), nn.ReLU(True)), nn.Linear(6, 6)),
    "relu",
)


@ALIASES.parametrize()
@claims
def test_aliases(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


@MODULES.parametrize()
@claims
def test_modules_in_place(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


@BLOCKS.parametrize()
@claims
def test_blocks_in_place(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


@pytest.mark.parametrize("function", ["torch.tanh(h", "torch.clamp(h, min=0", "torch.sigmoid(h"])
def test_a_call_with_out_is_left_alone_or_named(function: str) -> None:
    """`out=` works without gradients only."""
    text = f"""
class Out(Net):
    def forward(self, x):
        h, buffer = self.a(x), torch.zeros(4, 6)
        {function}, out=buffer)
        return self.b(F.relu(buffer - 0.1))"""
    out: dict[str, Any] = {"backward": False, "moves": False, "verdict": "either", "reason": "out=|line"}
    case = Case("out", lambda: written(text, HEADER).Out(), (("relu",),), **out)
    for claim in CLAIMS:
        claim(case)


def test_how_many_cases_there_are() -> None:
    assert [len(table.cases) for table in (ALIASES, MODULES, BLOCKS)] == [39, 19, 6]
