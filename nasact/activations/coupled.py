"""Candidates that are not scalar functions: each output depends on all features along one dimension."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from nasact.activations.candidate import Candidate, register


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    return torch.softmax(x, dim=dim)


register(
    Candidate(
        name="softmax",
        function=softmax,
        formula="e^x_i / sum_j e^x_j",
        source="Bridle 1990",
        range=(0.0, 1.0),
        monotone=True,
        left="0",
        right="1",
        elementwise=False,
        module=functools.partial(nn.Softmax, dim=-1),
    )
)
