"""Outputs of a model and functions of its parameters are kept apart from activations."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from equivalence import Case, Table, assert_roles, claims, written
from torch import nn

OUTPUTS, PARAMETERS = Table(), Table()


OUTPUT = {
    "torch.sigmoid(y)": ("sigmoid",),
    "y.sigmoid()": ("sigmoid",),
    "self.last(y)": ("sigmoid",),
    "{'mask': torch.sigmoid(y), 'raw': y}": ("sigmoid",),
    "(y, torch.sigmoid(y[:, 0]))": ("sigmoid",),
    "[torch.sigmoid(y).squeeze(-1)]": ("sigmoid",),
    "torch.sigmoid(y).view(-1)": ("sigmoid",),
    "torch.sigmoid(y) * 4 + 1": ("sigmoid",),
    "(torch.sigmoid(y) - 0.5) / 0.5": ("sigmoid",),
    "torch.cat([torch.sigmoid(y[:, :3]), y[:, 3:]], 1)": ("sigmoid",),
    "torch.sigmoid(y).clamp(1e-4, 1 - 1e-4)": ("sigmoid",),
    "y if self.training else torch.sigmoid(y)": ("sigmoid",),
    "F.hardsigmoid(y)": ("hard_sigmoid",),
    "torch.softmax(y, -1)": (),
    "F.log_softmax(y, dim=1)": (),
    "y.softmax(-1).argmax(-1)": (),
    "torch.exp(y)": (),
}


def output(expression: str) -> nn.Module:
    body = f"""
class Output(Net):
    def __init__(self):
        super().__init__()
        self.last = nn.Sigmoid()
    def forward(self, x):
        y = self.b(F.relu(self.a(x)))
        return {expression}"""
    return written(body).Output()


for expression, functions in OUTPUT.items():
    classes = {"moves": False, "learns": False} if "argmax" in expression else {}
    OUTPUTS.add(expression, functools.partial(output, expression), "relu", gates=functions, **classes)


OUTPUTS.add(
    "Sequential",
    lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 1), nn.Sigmoid()),
    "relu",
    gates=("sigmoid",),
)


OUTPUTS.add(
    "hidden and final",
    lambda: nn.Sequential(nn.Linear(6, 6), nn.Sigmoid(), nn.Linear(6, 1), nn.Sigmoid(), nn.Flatten(0)),
    "sigmoid",
    gates=("sigmoid",),
    moves=False,
)


OUTPUTS.add(
    "in a head",
    lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Sequential(nn.Linear(6, 1), nn.Sequential(nn.Sigmoid()))),
    "relu",
    gates=("sigmoid",),
)


PARAMETER = {
    "F.linear(h, self.a.weight + F.softplus(self.rho))": ("softplus",),
    "F.linear(h, self.a.weight * torch.sigmoid(self.rho))": ("sigmoid",),
    "F.linear(h, self.a.weight + self.sigma() * torch.randn(6, 6))": ("softplus",),
    "F.linear(h, torch.tanh(self.a.weight))": ("tanh",),
    "F.linear(h, self.a.weight.tanh())": ("tanh",),
    "F.linear(h, F.softplus(self.rho - 1))": ("softplus",),
    "F.linear(h, F.softplus(self.rho[:, :6].t()))": ("softplus",),
    "h + torch.tanh(self.gate) * self.b(h)": ("tanh",),
    "h * torch.sigmoid(self.gate)": ("sigmoid",),
    "h * self.gate.sigmoid() + (1 - self.gate.sigmoid()) * self.b(h)": ("sigmoid", "sigmoid"),
    "self.b(h) * F.relu(self.table)": ("relu",),
    "self.b(h) * torch.sigmoid(self.pair[0])": ("sigmoid",),
    "self.b(h) + F.softplus(getattr(self, 'gate'))": ("softplus",),
    "h * torch.exp(self.gate)": (),
    "h * self.gate.softmax(0)": (),
}


def of_parameters(expression: str) -> nn.Module:
    body = f"""
class OfParameters(Net):
    def __init__(self):
        super().__init__()
        self.act = nn.ReLU()
        self.rho, self.gate = nn.Parameter(torch.full((6, 6), -3.0)), nn.Parameter(torch.full((6,), 0.5))
        self.pair = nn.ParameterList([nn.Parameter(torch.ones(6))])
        self.register_buffer("table", torch.arange(6.0))
    def sigma(self):
        return F.softplus(self.rho)
    def forward(self, x):
        h = self.act(self.a(x))
        return {expression}"""
    return written(body).OfParameters()


for expression, functions in PARAMETER.items():
    # softsign at every site: relu is replaced, and kept where it is applied to a parameter
    options: dict[str, Any] = {"moves": "relu" not in functions}
    PARAMETERS.add(expression, functools.partial(of_parameters, expression), "relu", gates=functions, **options)


@OUTPUTS.parametrize()
@claims
def test_outputs(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


@PARAMETERS.parametrize()
@claims
def test_functions_of_parameters(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


def test_each_output_has_its_role_and_a_reason() -> None:
    assert_roles(OUTPUTS, "output", at_least=16)


def test_each_function_of_parameters_has_its_role_and_a_reason() -> None:
    assert_roles(PARAMETERS, "parameter", at_least=14)


def test_how_many_cases_there_are() -> None:
    assert [
        len(table.cases)
        for table in (
            OUTPUTS,
            PARAMETERS,
        )
    ] == [20, 15]
