"""Rare syntax of a forward stays as its author wrote it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from equivalence import Case, Net, Table, claims, written
from torch import Tensor, nn
from torch.nn import functional as F

SYNTAX = Table()


@SYNTAX("relu", "tanh")
class NestedFunctions(Net):
    def forward(self, x: Tensor) -> Tensor:
        shift = 0.5

        def inner(h: Tensor, *, scale: float = 2.0) -> Tensor:
            nonlocal shift
            shift += 1
            return F.relu(self.a(h)) * scale

        def twice(h: Tensor) -> Tensor:
            return torch.tanh(inner(h))

        return self.b(twice(x)) + shift


@SYNTAX("relu")
class Comprehension(Net):
    def forward(self, x: Tensor) -> Tensor:
        rows = [F.relu(self.a(row)) for row in x if row is not None]
        return self.b(torch.stack(rows))


@SYNTAX(sites=[("relu", "tanh"), ("relu", "relu", "tanh")])
class GeneratorAndDictionaryComprehension(Net):
    def forward(self, x: Tensor) -> Tensor:
        total = sum(F.relu(layer(x)) for layer in (self.a, self.b))
        named = {i: torch.tanh(row) for i, row in enumerate(total)}
        return torch.stack([named[i] for i in sorted(named, reverse=True)])


@SYNTAX("relu")
class LambdaHandedOn(Net):
    def forward(self, x: Tensor) -> Tensor:
        return functools.reduce(lambda h, layer: F.relu(layer(h)) - 0.1, (self.a, self.b), x)


@SYNTAX("relu", "relu")
class Walrus(Net):
    def forward(self, x: Tensor) -> Tensor:
        if (h := F.relu(self.a(x))).sum() > 0 and (n := len(h)):
            h = h / n
        return self.b(y := F.relu(h - 0.1)) + y


@SYNTAX("relu")
class Matches(Net):
    def forward(self, x: Tensor) -> Tensor:
        match tuple(x.shape):
            case (4, width) if width == 6:
                return self.b(F.relu(self.a(x)))
            case _:
                return x


@SYNTAX("relu")
class FormattedText(Net):
    def forward(self, x: Tensor) -> tuple[Tensor, str]:
        h = F.relu(self.a(x))
        return self.b(h), f"{h.shape[0]:>4}x{tuple(h.shape)!r} {'train' if self.training else 'eval'}"


@SYNTAX("relu")
class StarsAndSlices(Net):
    def forward(self, x: Tensor) -> Tensor:
        first, *rest = x.unbind(1)
        h = torch.stack([first, *rest], *(1,))
        h = F.relu(self.a(h)).clone()
        h[..., :2] += 1
        h[:, -1] = 0
        return self.b(h[::1, ...])


@SYNTAX("relu", "tanh", "relu")
class ChainsAndDel(Net):
    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.a(x).relu().mul(2).tanh()
        y = z = self.b(h)
        del h
        y = y @ self.a.weight
        return (y + z).relu() @ self.b.weight


TOTAL = 0


def zero() -> None:
    global TOTAL
    TOTAL = 0


@SYNTAX("relu", observe=lambda: TOTAL, reset=zero)
class GlobalStatement(Net):
    def forward(self, x: Tensor) -> Tensor:
        global TOTAL
        TOTAL += len(x)
        return self.b(F.relu(self.a(x))) + TOTAL


@SYNTAX("relu")
class ClassInForward(Net):
    def forward(self, x: Tensor) -> Tensor:
        class Local:
            width = 3

            def scaled(self, h: Tensor) -> Tensor:
                return h * self.width

        return self.b(Local().scaled(F.relu(self.a(x))))


TEXTS = {
    "Asserts": """
    def forward(self, x):
        assert x.dim() == 2, f"got {x.shape}"
        return self.b(F.relu(self.a(x)))""",
    "ImportsInForward": """
    def forward(self, x):
        import math
        from torch import nn as layers
        return self.b(F.relu(self.a(x)) * math.pi) + layers.Identity()(x)""",
    "Semicolons": """
    def forward(self, x): h = self.a(x); h = F.relu(h); return self.b(h)""",
    "Continuation": """
    def forward(
        self,
        x,
    ):
        return self.b(
            F.relu(
                self.a(
                    x,
                ),
            )
        ) + \\
            x""",
    "TabsAndComments": """
\tdef forward(self, x):
\t\t'''relu(x) is applied here: F.relu(x).'''
\t\t# F.tanh(x)
\t\treturn self.b(F.relu(self.a(x)))  # π""",
    "NonAscii": """
    def forward(self, x):
        größe, ψ = "α", F.relu(self.a(x)); return self.b(ψ), "é", größe""",
    "LambdaAsForward": """
    forward = lambda self, x: self.b(F.relu(self.a(x)))""",
    "TwoLambdas": """
    first, second = (lambda self, x: F.relu(self.a(x))), (lambda self, x: self.b(torch.tanh(x)))
    def forward(self, x):
        return self.second(self.first(x))""",
    "DefinedTwice": """
    def forward(self, x):
        return self.b(torch.tanh(self.a(x)))
    def forward(self, x):
        return self.b(F.relu(self.a(x)))""",
    "DefinedByACondition": """
    if hasattr(torch, "no_such_name"):
        def forward(self, x):
            return self.b(torch.tanh(self.a(x)))
    else:
        def forward(self, x):
            return self.b(F.relu(self.a(x)))""",
    "OtherNameForSelf": """
    def forward(this, x):
        self = None
        return this.b(F.relu(this.a(x)))""",
    "StarSelf": """
    def forward(*args):
        self, x = args
        return self.b(F.relu(self.a(x)))""",
    "TwoCallsOnOneLine": """
    def forward(self, x):
        return self.b(F.relu(self.a(x)) + F.relu(self.a(-x)))""",
    "ActivationInActivation": """
    def forward(self, x):
        return self.b(F.relu(torch.tanh(F.relu(self.a(x))) - 0.1))""",
    "ActivationInIndexAndDefault": """
    def forward(self, x):
        def scale(t, s=F.relu(self.a(x))):
            return t * s
        return self.b(scale(x))[:, [0, 1, 2]]""",
    "LambdaInForward": """
    def forward(self, x):
        act = lambda h, scale=2.0: F.relu(self.a(h)) * scale
        return self.b(act(x) + act(-x, scale=0.5))""",
    "LambdaMapped": """
    def forward(self, x):
        return self.b(torch.stack(list(map(lambda row: F.relu(self.a(row)), x))))""",
    "AugmentedAssignment": """
    def forward(self, x):
        h = self.a(x)
        h += F.relu(h)
        h *= 2
        return self.b(h)""",
}


FUNCTIONS = {
    "TwoLambdas": ("relu", "tanh"),
    "TwoCallsOnOneLine": ("relu", "relu"),
    "ActivationInActivation": ("relu", "tanh", "relu"),
}


def of_text(name: str, body: str) -> nn.Module:
    return getattr(written(f"class {name}(Net):{body}"), name)()


OPTIONS: dict[str, dict[str, Any]] = {
    "StarSelf": {"verdict": "either", "reason": "forward"},
    # the model overwrites the input of its relu, which other functions need in the backward pass: torch says so
    "AugmentedAssignment": {"moves": False, "learns": False},
}


for each_name, each_body in TEXTS.items():
    make = functools.partial(of_text, each_name, each_body)
    SYNTAX.add(each_name, make, *FUNCTIONS.get(each_name, ("relu",)), **OPTIONS.get(each_name, {}))


@SYNTAX.parametrize()
@claims
def test_syntax(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


def test_how_many_cases_there_are() -> None:
    assert len(SYNTAX.cases) == 29
