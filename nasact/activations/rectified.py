"""Candidates that consist of linear or parabolic pieces: relu and its relatives."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional

from nasact.activations.candidate import EVERYWHERE, INF, Candidate, register


def identity(x: Tensor) -> Tensor:
    return x


def squared_relu(x: Tensor) -> Tensor:
    return torch.relu(x).square()


def star_relu(x: Tensor) -> Tensor:
    return 0.8944 * torch.relu(x).square() - 0.4472


def leaky_relu(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, 0.01)


register(
    Candidate(
        name="relu",
        function=torch.relu,
        formula="max(x, 0)",
        source="Nair & Hinton 2010",
        range=(0.0, INF),
        monotone=True,
        left="0",
        right="x",
        kinks=(0.0,),
        module=nn.ReLU,
    )
)
register(
    Candidate(
        name="identity",
        function=identity,
        formula="x",
        source="-",
        range=EVERYWHERE,
        monotone=True,
        left="x",
        right="x",
        aliases=("linear", "id"),
        module=nn.Identity,
    )
)
register(
    Candidate(
        name="leaky_relu",
        function=leaky_relu,
        formula="max(x, 0) + 0.01 min(x, 0)",
        source="Maas et al. 2013",
        range=EVERYWHERE,
        monotone=True,
        left="0.01 x",
        right="x",
        kinks=(0.0,),
        aliases=("lrelu",),
        module=functools.partial(nn.LeakyReLU, 0.01),
    )
)
register(
    Candidate(
        name="relu6",
        function=functional.relu6,
        formula="min(max(x, 0), 6)",
        source="arXiv:1704.04861",
        range=(0.0, 6.0),
        monotone=True,
        left="0",
        right="6",
        kinks=(0.0, 6.0),
        module=nn.ReLU6,
    )
)
register(
    Candidate(
        name="squared_relu",
        function=squared_relu,
        formula="max(x, 0)^2",
        source="arXiv:2109.08668",
        range=(0.0, INF),
        monotone=True,
        left="0",
        right="x^2",
        bounded_slope=False,
        aliases=("relu_squared",),
    )
)
register(
    Candidate(
        name="star_relu",
        function=star_relu,
        formula="0.8944 max(x, 0)^2 - 0.4472",
        source="arXiv:2210.13452",
        range=(-0.4472, INF),
        monotone=True,
        left="-0.4472",
        right="0.8944 x^2 - 0.4472",
        bounded_slope=False,
    )
)
register(
    Candidate(
        name="abs",
        function=torch.abs,
        formula="|x|",
        source="-",
        range=(0.0, INF),
        monotone=False,
        left="-x",
        right="x",
        kinks=(0.0,),
    )
)
register(
    Candidate(
        name="softshrink",
        function=functional.softshrink,
        formula="sign(x) max(|x| - 0.5, 0)",
        source="Donoho & Johnstone 1994",
        range=EVERYWHERE,
        monotone=True,
        left="x + 0.5",
        right="x - 0.5",
        kinks=(-0.5, 0.5),
        module=nn.Softshrink,
    )
)
register(
    Candidate(
        name="hardshrink",
        function=functional.hardshrink,
        formula="x where |x| > 0.5, else 0",
        source="Donoho & Johnstone 1994",
        range=EVERYWHERE,
        monotone=True,
        left="x",
        right="x",
        kinks=(-0.5, 0.5),
        jumps=(-0.5, 0.5),
        bounded_slope=False,
        module=nn.Hardshrink,
    )
)
