"""Activations written by hand are one site, with the name of the function that they compute, wherever they stand."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from equivalence import CLAIMS, Case, Net, Table, batch, claims, written
from torch import Tensor, nn
from torch.nn import functional as F

from nasact.supernet import Genotype, find_sites

HANDWRITTEN, NO_ACTIVATION = Table(), Table()

FORMULAS = {
    "h * torch.sigmoid(h)": "silu",
    "torch.sigmoid(h).mul(h)": "silu",
    "h.sigmoid() * h": "silu",
    "h.mul(F.sigmoid(h))": "silu",
    "h / (1 + torch.exp(-h))": "silu",
    "0.5 * h * (1 + torch.erf(h / math.sqrt(2)))": "gelu",
    "h * 0.5 * (1.0 + torch.erf(h * 0.7071067811865476))": "gelu",
    "h * torch.special.ndtr(h)": "gelu",
    "0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))": "gelu_tanh",
    "0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * torch.pow(h, 3.0))))": "gelu_tanh",
    "h * 0.5 * (1.0 + torch.tanh(0.7978845608028654 * h * (1 + 0.044715 * h * h)))": "gelu_tanh",
    "h * torch.sigmoid(1.702 * h)": "quick_gelu",
    "torch.sigmoid(1.702 * h).mul(h)": "quick_gelu",
    "h * torch.tanh(F.softplus(h))": "mish",
    "h * torch.tanh(torch.log1p(torch.exp(h)))": "mish",
    "h.mul(F.softplus(h).tanh())": "mish",
    "h * F.relu6(h + 3) / 6": "hard_swish",
    "h * F.hardtanh(h + 3, 0.0, 6.0) / 6.0": "hard_swish",
    "h * F.hardsigmoid(h)": "hard_swish",
    "h * torch.clamp(h + 3, 0, 6) / 6": "hard_swish",
    "F.relu(h) ** 2": "squared_relu",
    "torch.square(F.relu(h))": "squared_relu",
    "F.relu(h).pow(2)": "squared_relu",
    "-F.logsigmoid(-h)": "softplus",
    "F.relu(h) - 0.01 * F.relu(-h)": "leaky_relu",
    "F.elu(h) + 1 - 1": "elu",
    "2 * torch.sigmoid(2 * h) - 1": "tanh",
    "h * torch.tanh(torch.exp(h))": "tanhexp",
    "h - torch.tanh(h)": "tanhshrink",
    "torch.tanh(h) ** 3 + F.relu(h)": "original",
}
BY_HAND_IN_ALL_PLACES = (
    "h * torch.sigmoid(h)",
    "0.5 * h * (1 + torch.erf(h / math.sqrt(2)))",
    "0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))",
    "h * torch.sigmoid(1.702 * h)",
    "h * torch.tanh(F.softplus(h))",
    "h * F.relu6(h + 3) / 6",
    "F.relu(h) ** 2",
)
FORWARD = """
    def forward(self, x):
        return self.b({})"""
PLACES = {
    "module": """
class Act(nn.Module):
    def forward(self, h):
        return {}
class Model(Net):
    def __init__(self):
        super().__init__()
        self.act = Act()""" + FORWARD.format("self.act(self.a(x))"),
    "helper": """
def by_hand(h):
    return {}
class Model(Net):""" + FORWARD.format("by_hand(self.a(x))"),
    "static method": """
class Model(Net):
    @staticmethod
    def by_hand(h):
        return {}""" + FORWARD.format("self.by_hand(self.a(x))"),
    "method": """
class Model(Net):
    def by_hand(self, h):
        return {}""" + FORWARD.format("self.by_hand(self.a(x))"),
    "lambda in an attribute": """
class Model(Net):
    def __init__(self):
        super().__init__()
        self.act = lambda h: {}""" + FORWARD.format("self.act(self.a(x))"),
    "function in an attribute": """
def by_hand(h: Tensor) -> Tensor:
    '''An activation.'''
    y = {}
    return y
class Model(Net):
    def __init__(self):
        super().__init__()
        self.act = by_hand""" + FORWARD.format("self.act(self.a(x))"),
    "module made in forward": """
class Act(nn.Module):
    def forward(self, h):
        return {}
class Model(Net):""" + FORWARD.format("Act()(self.a(x))"),
    "inline": """
class Model(Net):
    def forward(self, x):
        h = self.a(x)
        return self.b({})""",
}  # fmt: skip


def of_text(text: str) -> nn.Module:
    return written(text).Model()


def places() -> Iterator[tuple[str, str, str]]:
    """Place, formula and name of the function."""
    for formula, name in FORMULAS.items():
        for place in PLACES:
            if place in ("module", "helper") or formula in BY_HAND_IN_ALL_PLACES:
                yield place, formula, name


for each_place, each_formula, each_name in places():
    make = functools.partial(of_text, PLACES[each_place].format(each_formula))
    HANDWRITTEN.add(f"{each_place}: {each_formula}", make, each_name, moves=False, tolerance=1e-5)


@HANDWRITTEN.parametrize()
@pytest.mark.parametrize("claim", [CLAIMS[0], CLAIMS[2], CLAIMS[3], CLAIMS[5]], ids=lambda claim: claim.__name__)
def test_written_by_hand(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


@HANDWRITTEN.parametrize()
@pytest.mark.parametrize(("name", "function"), [("relu", torch.relu), ("tanh", torch.tanh), ("softsign", F.softsign)])
def test_another_function_replaces_the_whole_formula(case: Case, name: str, function: Any) -> None:
    model = case.build()
    net = Genotype.uniform(model, name).apply(model)
    x = batch(0)
    assert isinstance(model, Net)
    if case.sites == ((name,),):
        torch.testing.assert_close(net(x), model(x))
    else:
        assert torch.equal(net(x), model.b(function(model.a(x))))


class Swish(nn.Module):
    """An activation with settings, as model libraries write it."""

    def __init__(self, beta: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.beta, self.inplace = beta, inplace

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(x if self.beta == 1.0 else self.beta * x)
        return x.mul_(gate) if self.inplace else x * gate


class Wrapper(nn.Module):
    """A module of parameter-free modules."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.parts[0](x) * torch.tanh(self.parts[1](x))


class SubclassOfTorch(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) ** 2


MODULES: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "silu": (Swish, ["silu"]),
    "setting": (lambda: Swish(1.702), ["quick_gelu"]),
    "unknown setting": (lambda: Swish(0.7), ["original"]),
    "mish of modules": (lambda: Wrapper(nn.Identity(), nn.Softplus()), ["mish"]),
    "subclass of torch's": (SubclassOfTorch, ["squared_relu"]),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_without_parameters_are_named_by_what_they_compute(name: str) -> None:
    make, functions = MODULES[name]
    model = nn.Sequential(nn.Linear(6, 6), make(), nn.Linear(6, 6))
    report = find_sites(model)
    assert [(site.name, site.function) for site in report.sites] == [("1", *functions)]
    assert not report.gates
    net = Genotype.uniform(model, "tanh").apply(model)
    assert torch.equal(net(batch(0)), model[2](torch.tanh(model[0](batch(0)))))


def test_one_class_with_two_settings_is_two_functions() -> None:
    model = nn.Sequential(Swish(), nn.Linear(6, 6), Swish(1.702), nn.Linear(6, 6), Swish())
    assert [site.function for site in find_sites(model).sites] == ["silu", "quick_gelu", "silu"]


class Scale(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x + 0.5


class Normalise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / x.square().mean(-1, keepdim=True).add(1e-5).sqrt()


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn_like(x) if self.training else x


class Lambda(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


PLAIN: dict[str, Callable[[], nn.Module]] = {
    "scale": Scale,
    "normalise": Normalise,
    "noise": Noise,
    "softmax": lambda: nn.Softmax(-1),
    "log softmax": lambda: Lambda(lambda x: F.log_softmax(x, dim=-1)),
    "exp": lambda: Lambda(torch.exp),
    "exp of a method": lambda: Lambda(lambda x: x.exp()),
    "square": lambda: Lambda(lambda x: x**2),
    "permute": lambda: Lambda(lambda x: x.flip(-1)),
    "pad and crop": lambda: Lambda(lambda x: F.pad(x, (1, 1))[:, 1:-1]),
    "mean": lambda: Lambda(lambda x: x - x.mean(0)),
    "dropout": lambda: nn.Dropout(0.5),
    "identity": nn.Identity,
}
for plain_name, plain in PLAIN.items():
    NO_ACTIVATION.add(
        plain_name,
        lambda plain=plain: nn.Sequential(nn.Linear(6, 6), plain(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)),
        "relu",
    )


@NO_ACTIVATION.parametrize()
@claims
def test_what_is_no_activation_is_no_site(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


def test_how_many_cases_there_are() -> None:
    assert (len(FORMULAS), len(PLACES), len(HANDWRITTEN.cases), len(MODULES), len(PLAIN)) == (30, 8, 102, 5, 13)
    assert len(set(FORMULAS.values())) == 14
