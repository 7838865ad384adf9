"""How a forward may refer to an activation: by import, attribute, registry, argument, alias or a module made in place.

Each spelling is found and replaced, or named with its reason; none is missed in silence.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from equivalence import Case, Table, claims, written
from torch import nn

CALLS, MADE, HELD, HANDED = Table(), Table(), Table(), Table()

IMPORTS = """
import functools, operator, random
from functools import partial
import helper_layers
import torch
import torch as pytorch
import torch.nn as nn
import torch.nn.functional as F
import torch.nn.functional
import torch.nn.functional as nnf
from torch import Tensor, nn as layers, relu as torch_relu, tanh
from torch.nn import ReLU, functional, functional as G
from torch.nn.functional import relu as act, relu, gelu
from helper_layers import ACT, MODULES
from equivalence import LOG, Net
RELU = "relu"
rectify = F.relu
shrunk = partial(F.leaky_relu, negative_slope=0.2)
same = partial(F.relu)
squash = lambda h: torch.tanh(h)
ACTS = [F.relu, torch.tanh]
class Config:
    act = "relu"
    function = staticmethod(F.relu)
config = Config()
"""


def forward_of(expression: str) -> str:
    return f"\n    def forward(self, x):\n        h = self.a(x)\n        return self.b({expression})"


def build(body: str) -> nn.Module:
    return written(f"class Spelt(Net):{body}", IMPORTS).Spelt()


def fill(table: Table, spellings: dict[str, tuple[str, ...]], reason: str = "", **options: Any) -> None:
    """One case for each spelling: an expression of `h` in a forward, or a whole class body."""
    if reason:
        options |= {"verdict": "either", "reason": reason}
    for spelling, functions in spellings.items():
        name = " ".join(spelling.split())
        body = spelling if "def " in spelling else forward_of(spelling)
        table.add(name if len(name) < 90 else name[-90:], functools.partial(build, body), *functions, **options)


fill(
    CALLS,
    {
        "F.relu(h)": ("relu",),
        "G.relu(h)": ("relu",),
        "nnf.relu(h)": ("relu",),
        "functional.relu(h)": ("relu",),
        "nn.functional.relu(h)": ("relu",),
        "layers.functional.relu(h)": ("relu",),
        "torch.nn.functional.relu(h)": ("relu",),
        "pytorch.nn.functional.gelu(h, approximate='tanh')": ("gelu_tanh",),
        "act(h)": ("relu",),
        "relu(h)": ("relu",),
        "rectify(h)": ("relu",),
        "torch.relu(h)": ("relu",),
        "torch_relu(h)": ("relu",),
        "tanh(h)": ("tanh",),
        "h.relu()": ("relu",),
        "h.sigmoid()": ("sigmoid",),
        "Tensor.relu(h)": ("relu",),
        "torch.Tensor.tanh(h)": ("tanh",),
        "F.tanh(h) + F.sigmoid(h - 1)": ("tanh", "sigmoid"),
        "torch.special.expit(h)": ("sigmoid",),
        "torch.nn.functional.silu(input=h)": ("silu",),
        "F.relu(h, False)": ("relu",),
        "F.softplus(h, 1, 20)": ("softplus",),
        "F.softplus(h, beta=2)": ("original",),
        "F.elu(h, 1.0)": ("elu",),
        "F.leaky_relu(h, -0.2)": ("original",),
        "F.leaky_relu(h, negative_slope=1 / 100)": ("leaky_relu",),
        "F.hardtanh(h, min_val=0.0, max_val=6.0)": ("relu6",),
        "F.relu6(h)": ("relu6",),
        "F.logsigmoid(h) + F.hardswish(h)": ("logsigmoid", "hard_swish"),
        "(F.relu)(h)": ("relu",),
        "helper_layers.F.relu(h)": ("relu",),
        "helper_layers.activate(h)": ("relu",),
    },
)
fill(
    CALLS,
    {
        "F.relu(*(h,))": ("relu",),
        "F.relu(**{'input': h})": ("relu",),
        "torch.ops.aten.relu(h)": ("relu",),
        "torch.ops.aten.gelu.default(h)": ("gelu",),
        "torch._C._nn.silu(h)": ("silu",),
        "torch.sigmoid_(h.clone())": ("sigmoid",),
        "F.__dict__['relu'](h)": ("relu",),
        "getattr(F, 'relu')(h)": ("relu",),
        "getattr(F, RELU)(h)": ("relu",),
        "getattr(torch.nn.functional, config.act)(h)": ("relu",),
        "getattr(h, 'relu')()": ("relu",),
        "operator.methodcaller('relu')(h)": ("relu",),
        "F.relu.__call__(h)": ("relu",),
        "eval('F.relu')(h)": ("relu",),
        "ACT['relu'](h)": ("relu",),
        "ACT[config.act](h)": ("relu",),
        "ACT.get('tanh', F.relu)(h)": ("tanh",),
        "ACTS[0](h)": ("relu",),
        "helper_layers.ACT['tanh'](h)": ("tanh",),
        "same(h)": ("relu",),
        "shrunk(h)": ("original",),
        "partial(F.relu, h)()": ("relu",),
        "squash(h)": ("tanh",),
        "config.function(h)": ("relu",),
        "Config.function(h)": ("relu",),
        "(lambda t: F.relu(t))(h)": ("relu",),
        "(F.relu if self.training else torch.tanh)(h)": ("relu", "tanh"),
        "[F.relu, torch.tanh][0](h)": ("relu",),
        "(F.relu or None)(h)": ("relu",),
    },
    reason="forward|relu|tanh|silu|gelu|act|shrunk|same|squash|sigmoid|function",
    moves=False,
)
fill(
    MADE,
    {
        "nn.ReLU()(h)": ("relu",),
        "ReLU()(h)": ("relu",),
        "torch.nn.Tanh()(h)": ("tanh",),
        "nn.ReLU(inplace=True)(h)": ("relu",),
        "nn.LeakyReLU(0.2)(h)": ("original",),
        "nn.GELU(approximate='tanh')(h)": ("gelu_tanh",),
        "nn.ReLU().forward(h)": ("relu",),
        "nn.ReLU().to(h.device)(h)": ("relu",),
        "nn.Sequential(nn.ReLU(), nn.Tanh())(h)": ("relu", "tanh"),
        "getattr(nn, 'ReLU')()(h)": ("relu",),
        "MODULES['relu']()(h)": ("relu",),
        """
    def forward(self, x):
        made = nn.ReLU()
        return self.b(made(self.a(made(x))))""": ("relu", "relu"),
    },
    reason="forward|ReLU|LeakyReLU|GELU|Tanh|relu",
)
INIT = """
    def __init__(self):
        super().__init__()
        self.act = {}
    def forward(self, x):
        return self.b({})"""
OF_CLASS = """
    act = {}
    def forward(self, x):
        return self.b({})"""
CALLED = "self.act(self.a(x))"
fill(
    HELD,
    {
        INIT.format("F.relu", CALLED): ("relu",),
        INIT.format("torch.relu", CALLED): ("relu",),
        INIT.format("torch.Tensor.relu", CALLED): ("relu",),
        INIT.format("F.gelu", CALLED): ("gelu",),
        INIT.format("getattr(F, 'relu')", CALLED): ("relu",),
        INIT.format("nn.ReLU()", CALLED): ("relu",),
        INIT.format("nn.ReLU(inplace=True)", CALLED): ("relu",),
        INIT.format("nn.Sequential(nn.ReLU())", CALLED): ("relu",),
        INIT.format("nn.Sequential(nn.ReLU())", "self.act[0](self.a(x))"): ("relu",),
        INIT.format("nn.ModuleList([nn.ReLU()])", "self.act[-1](self.a(x))"): ("relu",),
        INIT.format("nn.ModuleDict({'relu': nn.ReLU()})", "self.act['relu'](self.a(x))"): ("relu",),
        INIT.format("ACT['tanh']", CALLED): ("tanh",),
    },
)
fill(
    HELD,
    {
        INIT.format("lambda h: F.relu(h)", CALLED): ("relu",),
        INIT.format("partial(F.relu)", CALLED): ("relu",),
        INIT.format("partial(F.leaky_relu, negative_slope=0.2)", CALLED): ("original",),
        INIT.format("partial(torch.tanh)", CALLED): ("tanh",),
        INIT.format("helper_layers.activate", CALLED): ("relu",),
        INIT.format("squash", CALLED): ("tanh",),
        INIT.format("nn.ReLU().forward", CALLED): ("relu",),
        INIT.format("[nn.ReLU(), nn.Tanh()]", "self.act[0](self.a(x))"): ("relu",),
        INIT.format("(F.relu, torch.tanh)", "self.act[1](self.a(x))"): ("tanh",),
        INIT.format("{'relu': nn.ReLU()}", "self.act['relu'](self.a(x))"): ("relu",),
        INIT.format("{'relu': F.relu}", "self.act['relu'](self.a(x))"): ("relu",),
        INIT.format("Config()", "self.act.function(self.a(x))"): ("relu",),
        INIT.format("'relu'", "getattr(F, self.act)(self.a(x))"): ("relu",),
        INIT.format("'relu'", "ACT[self.act](self.a(x))"): ("relu",),
        INIT.format("nn.ReLU", "self.act()(self.a(x))"): ("relu",),
        OF_CLASS.format("nn.ReLU()", CALLED): ("relu",),
        OF_CLASS.format("staticmethod(F.relu)", CALLED): ("relu",),
        OF_CLASS.format("F.relu", "Spelt.act(self.a(x))"): ("relu",),
        OF_CLASS.format("torch.tanh", CALLED): ("tanh",),
    },
    reason="act|forward|list|relu|tanh",
)
fill(
    HANDED,
    {
        "torch.stack(list(map(F.relu, h)))": ("relu",),
        "functools.reduce(lambda t, f: f(t), [F.relu, torch.tanh], h)": ("relu", "tanh"),
        """
    def apply_to(self, h, f):
        return f(h)
    def forward(self, x):
        return self.b(self.apply_to(self.a(x), F.relu))""": ("relu",),
        """
    def apply_to(self, h, f=torch.relu):
        return f(h)
    def forward(self, x):
        return self.b(self.apply_to(self.a(x)))""": ("relu",),
        """
    def forward(self, x, f=F.relu):
        return self.b(f(self.a(x)))""": ("relu",),
        """
    def forward(self, x):
        f = F.relu
        return self.b(f(self.a(x)))""": ("relu",),
        """
    def forward(self, x):
        f = F.relu if self.training else torch.tanh
        return self.b(f(self.a(x)))""": ("relu", "tanh"),
        """
    def forward(self, x):
        F = torch.nn.functional
        return self.b(F.relu(self.a(x)))""": ("relu",),
        """
    def forward(self, x):
        from torch.nn.functional import relu
        return self.b(relu(self.a(x)))""": ("relu",),
        """
    def forward(self, x):
        for f in (F.relu, torch.tanh):
            x = f(self.a(x))
        return self.b(x)""": ("relu", "tanh"),
        """
    def forward(self, x):
        def relu(h):
            return h * 2
        return self.b(torch.tanh(relu(self.a(x))))""": ("tanh",),
        """
    def forward(self, x, relu=lambda h: h * 2):
        return self.b(torch.tanh(relu(self.a(x))))""": ("tanh",),
    },
    reason="forward|line|relu|tanh|act|map",
)


@CALLS.parametrize()
@claims
def test_calls(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


@MADE.parametrize()
@claims
def test_modules_made_in_forward(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


@HELD.parametrize()
@claims
def test_activations_held_by_the_module(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


@HANDED.parametrize()
@claims
def test_activations_handed_on(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


def test_how_many_cases_there_are() -> None:
    assert [len(table.cases) for table in (CALLS, MADE, HELD, HANDED)] == [62, 12, 31, 12]
