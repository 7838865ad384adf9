"""Candidates that are powers of x, changed where their slope would be unbounded."""

from __future__ import annotations

import torch
from torch import Tensor

from nasact.activations.candidate import EVERYWHERE, Candidate, register

_FLEXIBLE = "Combined Flexible Activation Functions 2020, eq. 7"
CBRT_EPSILON = 0.1


def cube(x: Tensor) -> Tensor:
    inner = torch.clamp(x, -1.0, 1.0)
    return inner * inner * inner + 3.0 * (x - inner)


def signed_cbrt(x: Tensor) -> Tensor:
    return x * (x.square() + CBRT_EPSILON**2).pow(-1.0 / 3.0)


register(
    Candidate(
        name="cube",
        function=cube,
        formula="x^3 where |x| <= 1, else 3 x - 2 sign(x): its tangents at -1 and 1, slope at most 3",
        source=_FLEXIBLE,
        range=EVERYWHERE,
        monotone=True,
        left="3 x + 2",
        right="3 x - 2",
    )
)
register(
    Candidate(
        name="signed_cbrt",
        function=signed_cbrt,
        formula="x / (x^2 + 0.1^2)^(1/3): sign(x) |x|^(1/3) but for a slope of 4.64 at 0",
        source=_FLEXIBLE,
        range=EVERYWHERE,
        monotone=True,
        left="-(-x)^(1/3)",
        right="x^(1/3)",
        aliases=("cbrt", "cube_root"),
    )
)
