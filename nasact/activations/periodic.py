"""Candidates that oscillate: sin, cos, snake."""

from __future__ import annotations

import torch
from torch import Tensor

from nasact.activations.candidate import EVERYWHERE, Beta, Candidate, register

SNAKE_FREQUENCY = Beta(name="a", init=1.0, low=1e-3)


def snake(x: Tensor, a: float | Tensor) -> Tensor:
    a = SNAKE_FREQUENCY.fit(a, x)
    return x + torch.sin(a * x).square() / a


register(
    Candidate(
        name="sin",
        function=torch.sin,
        formula="sin(x)",
        source="arXiv:2006.09661",
        range=(-1.0, 1.0),
        monotone=False,
        left="oscillates",
        right="oscillates",
        aliases=("sinu", "sine"),
    )
)
register(
    Candidate(
        name="cos",
        function=torch.cos,
        formula="cos(x)",
        source="-",
        range=(-1.0, 1.0),
        monotone=False,
        left="oscillates",
        right="oscillates",
        aliases=("cosine",),
    )
)
register(
    Candidate(
        name="snake",
        function=snake,
        formula="x + sin(a x)^2 / a, a > 0",
        source="arXiv:2006.08195",
        range=EVERYWHERE,
        monotone=True,
        left="oscillates",
        right="oscillates",
        betas=(SNAKE_FREQUENCY,),
    )
)
