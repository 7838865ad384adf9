"""Candidates that saturate at both ends (sigmoid, tanh and their relatives), and tanhshrink, x - tanh(x)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nasact.activations.candidate import EVERYWHERE, Candidate, register


def hard_sigmoid(x: Tensor) -> Tensor:
    # bit-identical to functional.hardsigmoid, which has no second derivative (torch 2.15: hardsigmoid_backward)
    return (functional.hardtanh(x, -3.0, 3.0) + 3.0) / 6.0


def softsign(x: Tensor) -> Tensor:
    # bit-identical to functional.softsign; the second derivative of abs imports torch's compiler (2.14: two seconds)
    return x / (x * x.sign() + 1)


register(
    Candidate(
        name="tanh",
        function=torch.tanh,
        formula="(e^x - e^-x) / (e^x + e^-x)",
        source="LeCun et al. 1998",
        range=(-1.0, 1.0),
        monotone=True,
        left="-1",
        right="1",
        module=nn.Tanh,
    )
)
register(
    Candidate(
        name="sigmoid",
        function=torch.sigmoid,
        formula="1 / (1 + e^-x)",
        source="Rumelhart et al. 1986",
        range=(0.0, 1.0),
        monotone=True,
        left="0",
        right="1",
        aliases=("logistic",),
        module=nn.Sigmoid,
    )
)
register(
    Candidate(
        name="softsign",
        function=softsign,
        formula="x / (1 + |x|)",
        source="Bergstra et al. 2009",
        range=(-1.0, 1.0),
        monotone=True,
        left="-1",
        right="1",
        module=nn.Softsign,
    )
)
register(
    Candidate(
        name="hard_sigmoid",
        function=hard_sigmoid,
        formula="min(max(x / 6 + 1/2, 0), 1)",
        source="arXiv:1905.02244",
        range=(0.0, 1.0),
        monotone=True,
        left="0",
        right="1",
        kinks=(-3.0, 3.0),
        aliases=("hardsigmoid",),
        module=nn.Hardsigmoid,
    )
)
register(
    Candidate(
        name="hardtanh",
        function=functional.hardtanh,
        formula="min(max(x, -1), 1)",
        source="Collobert 2004",
        range=(-1.0, 1.0),
        monotone=True,
        left="-1",
        right="1",
        kinks=(-1.0, 1.0),
        aliases=("hard_tanh",),
        module=nn.Hardtanh,
    )
)
register(
    Candidate(
        name="tanhshrink",
        function=functional.tanhshrink,
        formula="x - tanh(x)",
        source="torch.nn.Tanhshrink",
        range=EVERYWHERE,
        monotone=True,
        left="x + 1",
        right="x - 1",
        module=nn.Tanhshrink,
    )
)
