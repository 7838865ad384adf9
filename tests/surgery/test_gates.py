"""The gates of squeeze and excitation are no activations, and left alone unless they are included by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from equivalence import Call, Case, Table, assert_roles, claims, found_gates, written
from torch import Tensor, nn
from torch.nn import functional as F

from nasact.errors import SurgeryError
from nasact.supernet import Genotype, find_sites, relax

SQUEEZE = Table()


def images(index: int) -> Call:
    return (torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(index)),), {}


HEADER = """
import torch
from torch import nn
from torch.nn import functional as F
class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.out = nn.Conv2d(6, 3, 1), nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)
        self.gate, self.act = nn.Sigmoid(), nn.ReLU()
    def scale(self, x, g):
        return x * g
    def squeeze(self, x):
        return self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True))))
    def forward(self, x):
        return self.out(self.excite(x, self.squeeze(x)))
"""
EXCITE = {
    "x * torch.sigmoid(s)": "sigmoid",
    "x * s.sigmoid()": "sigmoid",
    "x * F.sigmoid(s)": "sigmoid",
    "torch.sigmoid(s) * x": "sigmoid",
    "x.mul(torch.sigmoid(s))": "sigmoid",
    "torch.mul(x, torch.sigmoid(s))": "sigmoid",
    "torch.multiply(torch.sigmoid(s), x)": "sigmoid",
    "x * torch.sigmoid(s).expand_as(x)": "sigmoid",
    "x * torch.sigmoid(s).expand(-1, -1, 4, 4)": "sigmoid",
    "x * torch.sigmoid(s.flatten(1)).view(x.shape[0], -1, 1, 1)": "sigmoid",
    "x * torch.sigmoid(s).to(x.dtype)": "sigmoid",
    "x * torch.sigmoid(s)[:, :, :1]": "sigmoid",
    "x * F.interpolate(torch.sigmoid(s), size=4)": "sigmoid",
    "x * self.gate(s)": "sigmoid",
    "self.scale(x, torch.sigmoid(s))": "sigmoid",
    "self.scale(x, self.gate(s))": "sigmoid",
    "x.clone().mul_(s.sigmoid())": "sigmoid",
    "x.clone().mul_(s.sigmoid_())": "sigmoid",
    "x + x * torch.sigmoid(s)": "sigmoid",
    "x * (2 * torch.sigmoid(s))": "sigmoid",
    "x * (1 + torch.sigmoid(s))": "sigmoid",
    "x * (1 - torch.sigmoid(s))": "sigmoid",
    "x * torch.sigmoid(s) * 0.5 + x": "sigmoid",
    "torch.einsum('nchw,nc->nchw', x, torch.sigmoid(s).flatten(1))": "sigmoid",
    "torch.addcmul(x, x, torch.sigmoid(s))": "sigmoid",
    "x * torch.special.expit(s)": "sigmoid",
    "x * F.hardsigmoid(s)": "hard_sigmoid",
    "F.hardsigmoid(s, inplace=True) * x": "hard_sigmoid",
    "x * nn.functional.hardsigmoid(s).expand_as(x)": "hard_sigmoid",
}
METHODS = {
    "a name": "g = torch.sigmoid(s)\n        return x * g",
    "two names": "g = torch.sigmoid(s)\n        w = g.expand_as(x)\n        return w * x",
    "the same name": "s = torch.sigmoid(s)\n        return x * s",
    "in place": "x = x * 1\n        x *= torch.sigmoid(s)\n        return x",
    "in a tuple": "(g, y) = torch.sigmoid(s), x\n        return y * g",
    "used twice": "g = torch.sigmoid(s)\n        return x * g + F.avg_pool2d(x, 1) * g",
    "both ways": "g = torch.sigmoid(s)\n        return g * x + (1 - g) * x.flip(1)",
    "in a branch": "if self.training:\n            x = x + 1\n        return x * s.sigmoid()",
    "in a loop": "for _ in range(2):\n            x = x * torch.sigmoid(s)\n        return x",
    "unpacked": "a, b = torch.sigmoid(s).chunk(2, 1)\n        return torch.cat([a * x[:, :3], b * x[:, 3:]], 1)",
}


def build(body: str) -> nn.Module:
    return written(f"class Squeeze(Base):\n    def excite(self, x, s):\n        {body}", HEADER).Squeeze()


for expression, function in EXCITE.items():
    make = functools.partial(build, f"return {expression}")
    SQUEEZE.add(expression, make, "relu", gates=(function,), inputs=images)
for method_name, body in METHODS.items():
    SQUEEZE.add(method_name, functools.partial(build, body), "relu", gates=("sigmoid",), inputs=images)


@SQUEEZE("relu", gates=("sigmoid",), inputs=images)
class SequentialThenProduct(nn.Module):
    """The parent multiplies by what a Sequential of it returns."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 3, 1), nn.ReLU(), nn.Conv2d(3, 6, 1), nn.Sigmoid()]
        self.se = nn.Sequential(*layers)
        self.out = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x * self.se(x))


class Gate(nn.Module):
    """A child that returns a gate, which its parent applies."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv2d(2, 1, 1), gate

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(self.conv(torch.cat([x.mean(1, True), x.amax(1, True)], 1)))


@SQUEEZE(gates=("sigmoid", "hard_sigmoid"), sites=[("relu",)], inputs=images)
class SpatialGates(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = Gate(nn.Sigmoid()), Gate(nn.Hardsigmoid()), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.one(x) * x)
        return self.out(x * self.two(x))


@SQUEEZE.parametrize()
@claims
def test_squeeze_and_excitation(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


def test_each_gate_has_its_role_and_a_reason() -> None:
    assert_roles(SQUEEZE, "gate", at_least=42)


INCLUDED = {"torch.sigmoid(s) * x": torch.tanh, "x * self.gate(s)": torch.tanh}


@pytest.mark.parametrize("expression", INCLUDED)
def test_include_by_the_full_name_brings_in_a_gate_and_only_it(expression: str) -> None:
    case = SQUEEZE.cases[expression]
    model = case.build()
    (gate,) = found_gates(model)
    supernet = relax(model, ["relu", "tanh"], include=(gate.name,), kernel="reference")
    assert list(supernet.mixtures()) == [gate.name]
    supernet(*case.inputs(0)[0]).sum().backward()
    (alpha,) = supernet.arch_parameters()
    assert alpha.grad is not None
    assert bool((alpha.grad != 0).any())
    genotype = Genotype.uniform(model, "tanh", include=(gate.name,))
    assert list(genotype.sites) == [gate.name]
    x = case.inputs(0)[0][0]
    assert torch.equal(genotype.apply(model)(x), model.out(x * torch.tanh(model.squeeze(x))))


@pytest.mark.parametrize("expression", INCLUDED)
def test_include_of_all_and_of_a_gate_searches_both(expression: str) -> None:
    model = SQUEEZE.cases[expression].build()
    (gate,), (site,) = found_gates(model), find_sites(model).sites
    options: dict[str, Any] = {"normaliser": "affine", "init": "original", "kernel": "reference"}
    supernet = relax(model, ["relu", "tanh"], include=("*", gate.name), **options)
    assert set(supernet.mixtures()) == {site.name, gate.name}
    assert torch.equal(supernet(*images(0)[0]), model(*images(0)[0]))
    both = find_sites(model, include=("*", gate.name))
    assert {each.name for each in both.sites} == {site.name, gate.name}
    assert gate.name not in [each.name for each in both.gates]


ONE_GATE: dict[str, Callable[[], nn.Module]] = {
    "squeeze": SQUEEZE.cases["x * self.gate(s)"].build,
    "method": SQUEEZE.cases["x * s.sigmoid()"].build,
    "output": lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 1), nn.Sigmoid()),
}


@pytest.mark.parametrize("name", ONE_GATE)
def test_a_pattern_that_matches_gates_only_says_how_to_include_them(name: str) -> None:
    model = ONE_GATE[name]()
    (gate,) = found_gates(model)
    for pattern in (f"[{gate.name[0]}]{gate.name[1:]}", f"{gate.name}*"):
        with pytest.raises(SurgeryError) as caught:
            relax(model, include=(pattern,))
        assert gate.name in str(caught.value)
        assert "include" in str(caught.value)
        assert gate.role in str(caught.value) or gate.reason in str(caught.value)


def test_a_model_whose_only_activation_is_a_gate_is_refused_with_its_name() -> None:
    model = nn.Sequential(nn.Linear(6, 1), nn.Sigmoid())
    with pytest.raises(SurgeryError, match=r"'1'.*include"):
        relax(model)
    assert list(relax(model, include=("1",)).mixtures()) == ["1"]


def test_a_misspelt_gate_is_refused() -> None:
    with pytest.raises(SurgeryError, match=r"'gat' matches no site"):
        relax(SQUEEZE.cases["x * self.gate(s)"].build(), include=("gat",))


def test_excluding_a_gate_changes_nothing() -> None:
    model = SQUEEZE.cases["x * self.gate(s)"].build()
    assert find_sites(model, exclude=("gate",)).sites == find_sites(model).sites


def test_how_many_cases_there_are() -> None:
    assert (len(SQUEEZE.cases), len(ONE_GATE)) == (41, 3)
