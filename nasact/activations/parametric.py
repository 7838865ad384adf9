"""Candidates with learnable parameters: slopes, ramps and xielu. (snake is in periodic.py.)"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nasact.activations.candidate import EVERYWHERE, INF, Beta, Candidate, register

_FLEXIBLE = "Combined Flexible Activation Functions 2020, eq. 5"

LEAK = Beta(name="slope", init=0.01, low=0.0, high=1.0)
PRELU_SLOPE = Beta(name="slope", init=0.25)
# the initial slope at 0 is that of sigmoid (bounded_ramp) and of tanh (signed_ramp), which the ramps replace
RAMP_WIDTH = Beta(name="b", init=2.0, low=1e-2)
SIGNED_RAMP_WIDTH = Beta(name="b", init=1.0, low=1e-2)
XIELU_LINEAR = 0.5
XIELU_POSITIVE = Beta(name="a_p", init=0.8, low=0.0)
XIELU_NEGATIVE = Beta(name="a_n", init=0.8, low=XIELU_LINEAR)


def leaky_slope(x: Tensor, slope: float | Tensor) -> Tensor:
    return torch.where(x > 0, x, LEAK.fit(slope, x) * x)


def prelu(x: Tensor, slope: float | Tensor) -> Tensor:
    return torch.where(x > 0, x, PRELU_SLOPE.fit(slope, x) * x)


def bounded_ramp(x: Tensor, b: float | Tensor) -> Tensor:
    # the formula's two relus lose digits by cancellation far from 0; a clamp does not
    return torch.clamp(x / (2.0 * RAMP_WIDTH.fit(b, x)) + 0.5, 0.0, 1.0)


def signed_ramp(x: Tensor, b: float | Tensor) -> Tensor:
    return torch.clamp(x / SIGNED_RAMP_WIDTH.fit(b, x), -1.0, 1.0)


def xielu(x: Tensor, a_p: float | Tensor, a_n: float | Tensor) -> Tensor:
    positive = XIELU_POSITIVE.fit(a_p, x) * torch.clamp(x, min=0.0).square()
    below = torch.clamp(x, max=0.0)
    negative = XIELU_NEGATIVE.fit(a_n, x) * (torch.expm1(below) - below)
    return positive + negative + XIELU_LINEAR * x


register(
    Candidate(
        name="leaky_slope",
        function=leaky_slope,
        formula="max(x, 0) + slope min(x, 0), slope in [0, 1]",
        source="arXiv:1801.09403",
        range=EVERYWHERE,
        monotone=True,
        left="0.01 x",
        right="x",
        kinks=(0.0,),
        betas=(LEAK,),
    )
)
register(
    Candidate(
        name="prelu",
        function=prelu,
        formula="max(x, 0) + slope min(x, 0)",
        source="arXiv:1502.01852",
        range=EVERYWHERE,
        monotone=False,
        left="0.25 x",
        right="x",
        kinks=(0.0,),
        betas=(PRELU_SLOPE,),
        module=nn.PReLU,
    )
)
register(
    Candidate(
        name="bounded_ramp",
        function=bounded_ramp,
        formula="(max(x + b, 0) - max(x - b, 0)) / (2 b), b > 0",
        source=_FLEXIBLE,
        range=(0.0, 1.0),
        monotone=True,
        left="0",
        right="1",
        kinks=(-2.0, 2.0),
        betas=(RAMP_WIDTH,),
        aliases=("ramp",),
    )
)
register(
    Candidate(
        name="signed_ramp",
        function=signed_ramp,
        formula="(max(x + b, 0) - max(x - b, 0)) / b - 1, b > 0",
        source=_FLEXIBLE,
        range=(-1.0, 1.0),
        monotone=True,
        left="-1",
        right="1",
        kinks=(-1.0, 1.0),
        betas=(SIGNED_RAMP_WIDTH,),
    )
)
register(
    Candidate(
        name="xielu",
        function=xielu,
        formula="x/2 + a_p x^2 where x > 0, else x/2 + a_n (e^x - 1 - x), a_p >= 0, a_n >= 1/2",
        source="arXiv:2411.13010",
        range=(-0.20575122409648213, INF),
        monotone=False,
        left="-0.3 x - 0.8",
        right="0.8 x^2 + 0.5 x",
        bounded_slope=False,
        betas=(XIELU_POSITIVE, XIELU_NEGATIVE),
    )
)
