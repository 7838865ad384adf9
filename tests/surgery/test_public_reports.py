"""Ways of writing models that public repositories use: what surgery finds in them, and what they stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from equivalence import Case, batch, claims, the_supernet_starts_as_the_model, written
from public_models import HEADER, MODELS
from torch import nn
from torch.overrides import TorchFunctionMode

from nasact.errors import SurgeryError
from nasact.supernet import Genotype, find_sites

ACTIVATIONS: dict[str, tuple[str, list[str]]] = {
    # an activation, and the function that it computes
    "bias and gelu by tanh": (
        """
def bias_gelu(bias, y):
    x = bias + y
    return x * 0.5 * (1.0 + torch.tanh(0.79788456 * x * (1 + 0.044715 * x * x)))
class M(Model):
    def hidden(self, h, x):
        return bias_gelu(self.a.bias, h)""",
        ["gelu_tanh"],
    ),
    "default of an inner lambda": (
        """
class M(Model):
    def hidden(self, h, x):
        density = lambda raw, distance, act=F.relu: 1.0 - torch.exp(-act(raw) * distance)
        return density(h, x.abs())""",
        ["relu"],
    ),
    "hard swish of nested modules": (
        """
class HSigmoid(nn.Module):
    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU6(inplace=True)
    def forward(self, x):
        return self.relu(x + 3) / 6
class HSwish(nn.Module):
    def __init__(self):
        super().__init__()
        self.sigmoid = HSigmoid()
    def forward(self, x):
        return x * self.sigmoid(x)
class M(Model):
    def __init__(self):
        super().__init__()
        self.act = HSwish()
    def hidden(self, h, x):
        return self.act(h)""",
        ["hard_swish"],
    ),
    "convolution module with a norm by name": (
        """
class Swish(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(x)
class Layer(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.linear, self.activate, self.norm_name = nn.Linear(6, 6), Swish(), "bn" if norm else None
        if norm:
            self.bn = nn.BatchNorm1d(6)
    @property
    def norm(self):
        return getattr(self, self.norm_name) if self.norm_name else None
    def forward(self, x):
        x = self.linear(x)
        if self.norm_name:
            x = self.norm(x)
        return self.activate(x)
class M(Model):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(Layer(True), Layer(False))
    def hidden(self, h, x):
        return self.layers(h)""",
        ["silu", "silu"],
    ),
    "activation of the class": (
        """
class Layer(nn.Module):
    default_act = nn.SiLU()
    def __init__(self, act=True):
        super().__init__()
        self.linear, self.act = nn.Linear(6, 6), self.default_act if act is True else act or nn.Identity()
    def forward(self, x):
        return self.act(self.linear(x))
class M(Model):
    def __init__(self):
        super().__init__()
        self.m = nn.ModuleList([Layer(), Layer(nn.ReLU(inplace=True)), Layer(None)])
    def hidden(self, h, x):
        y = [h, h]
        y.extend(m(y[-1]) for m in self.m)
        return sum(y)""",
        ["silu", "relu"],
    ),
}

ROLES: dict[str, tuple[str, list[str]]] = {
    # the functions of the sites; everything else in the model is no activation
    "output: deviation": (
        """
@dataclasses.dataclass
class Output:
    p: typing.Any = None
class Pair(typing.NamedTuple):
    p: Tensor
class M(Net):
    def forward(self, x):
        y = self.b(F.relu(self.a(x)))
        m, s = y.chunk(2, 1)
        return m, F.softplus(s) + 1e-6""",
        ["relu"],
    ),
    "output: interpolated": (
        """
@dataclasses.dataclass
class Output:
    p: typing.Any = None
class Pair(typing.NamedTuple):
    p: Tensor
class M(Net):
    def forward(self, x):
        y = self.b(F.relu(self.a(x)))
        return F.interpolate(torch.sigmoid(y)[:, None], scale_factor=2)""",
        ["relu"],
    ),
    "output: heads by name": (
        """
@dataclasses.dataclass
class Output:
    p: typing.Any = None
class Pair(typing.NamedTuple):
    p: Tensor
class M(Net):
    def forward(self, x):
        y = self.b(F.relu(self.a(x)))
        heads = {'a': self.a, 'b': self.b}
        return {k: torch.sigmoid(m(y)) for k, m in heads.items()}""",
        ["relu"],
    ),
    "gate: stacked": (
        """
class M(Model):
    def hidden(self, h, x):
        h = F.relu(h)
        y = self.b(h)
        a, b = torch.stack([torch.sigmoid(y), torch.sigmoid(h)]).unbind(0)
        return a * x + b * h""",
        ["relu"],
    ),
    "gate: concatenated": (
        """
class M(Model):
    def hidden(self, h, x):
        h = F.relu(h)
        y = self.b(h)
        g = torch.cat([torch.sigmoid(y), torch.sigmoid(h)], 1)
        return g[:, :6] * x + g[:, 6:] * h""",
        ["relu"],
    ),
    "gate: exponential decay": (
        """
class M(Model):
    def hidden(self, h, x):
        h = F.relu(h)
        y = self.b(h)
        return torch.exp(-F.softplus(y) * x.abs()) * h""",
        ["relu"],
    ),
}

EQUAL: dict[str, str] = {
    # a model that the supernet must be, whatever was found
    "number that a loop changes": """
class M(Model):
    def hidden(self, h, x):
        k = 1
        for layer in (self.a, self.b):
            h = F.relu(layer(h)) * k
            k += 1
        return h""",
}

OVERWRITTEN: dict[str, str] = {
    # statements that overwrite the input or the result of a site
    "dropout of a Sequential": """
class M(Model):
    def __init__(self):
        super().__init__()
        self.overwrites, self.gelu, self.drop = Overwrites(), nn.GELU(), nn.Dropout(0.5, inplace=True)
        self.seq = nn.Sequential(nn.Hardswish(inplace=True), nn.Dropout(0.2, inplace=True))
    def hidden(self, h, x):
        return self.seq(h)""",
    "result in a child": """
class M(Model):
    def __init__(self):
        super().__init__()
        self.overwrites, self.gelu, self.drop = Overwrites(), nn.GELU(), nn.Dropout(0.5, inplace=True)
        self.seq = nn.Sequential(nn.Hardswish(inplace=True), nn.Dropout(0.2, inplace=True))
    def hidden(self, h, x):
        return self.overwrites(F.gelu(h))""",
    "view of the result": """
class M(Model):
    def __init__(self):
        super().__init__()
        self.overwrites, self.gelu, self.drop = Overwrites(), nn.GELU(), nn.Dropout(0.5, inplace=True)
        self.seq = nn.Sequential(nn.Hardswish(inplace=True), nn.Dropout(0.2, inplace=True))
    def hidden(self, h, x):
        return F.gelu(h).view(-1).add_(1).view(4, 6)""",
    "transposed result": """
class M(Model):
    def __init__(self):
        super().__init__()
        self.overwrites, self.gelu, self.drop = Overwrites(), nn.GELU(), nn.Dropout(0.5, inplace=True)
        self.seq = nn.Sequential(nn.Hardswish(inplace=True), nn.Dropout(0.2, inplace=True))
    def hidden(self, h, x):
        h = F.gelu(h).transpose(0, 1)
        h += 1
        return h.t()""",
}

EVERYWHERE: dict[str, str] = {
    # another function must act at every relu
    "module that holds itself": """
class M(Model):
    def __init__(self):
        super().__init__()
        self.me, self.act = [self], nn.ReLU()
    def hidden(self, h, x, n=2):
        return self.me[0].act(h) if n == 0 else self.me[0].hidden(F.relu(self.me[0].a(h)) - 0.1, x, n - 1)""",
}

TRACED: dict[str, tuple[str, list[str]]] = {
    # an expression of h in a torch.fx graph, and the function that it computes
    "relu": ("F.relu(h)", ["relu"]),
}


@MODELS.parametrize()
@claims
def test_models_of_public_repositories(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


def built(text: str) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = written(text, HEADER).M()
    return model


class CosOf(TorchFunctionMode):
    """Replaces one function of torch by cos."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return torch.cos(args[0]) if getattr(func, "__name__", "") == self.name else func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_a_site_of_its_name_or_named(name: str) -> None:
    text, functions = ACTIVATIONS[name]
    report = find_sites(built(text))
    found = [site.function for site in report.sites]
    assert found == functions or report.unreachable, report
    case = Case(name, lambda: built(text), (), verdict="either", reason="line|root|hidden", tolerance=1e-5)
    the_supernet_starts_as_the_model(case)


@pytest.mark.parametrize("name", ROLES)
def test_gates_outputs_and_branches_that_are_not_taken_are_no_sites(name: str) -> None:
    text, functions = ROLES[name]
    model = built(text)
    for report in (find_sites(model), find_sites(model, example_input=batch(0))):
        assert [site.function for site in report.sites] == functions, report


@pytest.mark.parametrize("name", EQUAL)
def test_local_numbers_have_their_values(name: str) -> None:
    case = Case(name, lambda: built(EQUAL[name]), (), verdict="either", reason="line|root|hidden", tolerance=1e-6)
    the_supernet_starts_as_the_model(case)


@pytest.mark.parametrize("name", OVERWRITTEN)
def test_networks_are_trained_though_tensors_are_overwritten(name: str) -> None:
    model = built(OVERWRITTEN[name]).train()
    model(batch(0)).sum().backward()
    case = Case(name, lambda: built(OVERWRITTEN[name]), (), verdict="either", reason="line|root|hidden")
    the_supernet_starts_as_the_model(case)
    if find_sites(model).unreachable:
        return
    for function in ("tanh", "sigmoid", "relu"):
        net = Genotype.uniform(model, function).apply(model)
        net(batch(0)).sum().backward()
        assert net.get_parameter("a.weight").grad is not None, function


@pytest.mark.parametrize("name", EVERYWHERE)
def test_another_function_acts_at_every_call_or_the_call_is_named(name: str) -> None:
    model = built(EVERYWHERE[name])
    with CosOf("relu"):
        expected = model(batch(0))
    try:
        net = Genotype.uniform(model, "cos").apply(model)
    except SurgeryError:
        assert find_sites(model).unreachable
        return
    assert torch.allclose(net(batch(0)), expected, atol=1e-6)
    for site in find_sites(model).sites:
        one = Genotype.uniform(model, "cos", include=[site.name]).apply(model)
        assert not torch.equal(one(batch(0)), model(batch(0))), f"{site.name!r} has no effect"


@pytest.mark.parametrize("name", TRACED)
def test_activations_in_a_traced_graph_are_found_or_named(name: str) -> None:
    expression, functions = TRACED[name]
    text = f"class M(Model):\n    def hidden(self, h, x):\n        return {expression}"
    report = find_sites(torch.fx.symbolic_trace(built(text)))
    assert [site.function for site in report.sites] == functions or report.unreachable, report


def test_how_many_cases_there_are() -> None:
    tables: list[Any] = [ACTIVATIONS, ROLES, EQUAL, OVERWRITTEN, EVERYWHERE, TRACED, MODELS.cases]
    assert [len(table) for table in tables] == [5, 6, 1, 4, 1, 1, 10]
