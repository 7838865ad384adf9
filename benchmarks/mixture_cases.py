"""The cases that the benchmarks time: a mixture, written in several ways. Knows nasact; times nothing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from timing import Case
from torch import Tensor

from nasact import activations
from nasact.mixture import Bank, Layout

ALL = tuple(name for name in activations.load_space("all") if name != "softmax")
BASIC = tuple(activations.load_space("basic"))
SHAPE, SMALL_SHAPE = (64, 32, 30, 30), (4, 8, 15, 15)
"""The input shapes: for the targets, and for a smoke test."""

Mix = Callable[[Tensor, Tensor], Tensor]


def functions(names: tuple[str, ...]) -> list[Callable[..., Tensor]]:
    return [activations.get(name).function for name in names]


def naive(names: tuple[str, ...]) -> Mix:
    """The mixture as it is usually written: all functions stacked, times the weights, summed."""
    candidates = functions(names)

    def mix(x: Tensor, weights: Tensor) -> Tensor:
        stacked = torch.stack([function(x) for function in candidates])
        return (weights.view(-1, *[1] * x.dim()) * stacked).sum(0)

    return mix


def loop(names: tuple[str, ...]) -> Mix:
    """The mixture one function at a time. Weights (..., K): without their last dimension they broadcast against x."""
    candidates = functions(names)

    def mix(x: Tensor, weights: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for function, weight in zip(candidates, weights.unbind(-1), strict=True):
            total = total + weight * function(x)
        return total

    return mix


def compiled(names: tuple[str, ...]) -> Mix:
    """The loop, compiled for speed: as one graph, and for one shape only."""
    return torch.compile(loop(names), fullgraph=True, dynamic=False)


def table(names: tuple[str, ...], shape: tuple[int, ...], level: str = "layer", kernel: str = "table") -> Mix:
    return Bank(names, layout(level, shape), kernel=kernel)


def layout(level: str, shape: tuple[int, ...]) -> Layout:
    return Layout(level=level, shape={"layer": (), "channel": shape[1:2], "neuron": shape[1:]}[level])


def weights_for(names: tuple[str, ...], *lead: int) -> Tensor:
    return torch.softmax(torch.randn(*lead, len(names)), dim=-1).requires_grad_()


def forward_and_backward(function: Callable[..., Tensor], x: Tensor, *weights: Tensor) -> Case:
    """Forward pass, and backward pass to x and to the weights."""
    inputs = (x.requires_grad_(), *weights)
    gradient = torch.randn_like(x)
    return lambda: torch.autograd.grad(function(*inputs), inputs, gradient)


def forward_only(function: Callable[[Tensor], Tensor], x: Tensor) -> Case:
    def case() -> Tensor:
        with torch.inference_mode():
            return function(x)

    return case


def mixing(names: tuple[str, ...], x: Tensor, kernel: str = "table") -> Case:
    """A mixture of `names` at layer level, forward and backward."""
    return forward_and_backward(table(names, tuple(x.shape), kernel=kernel), x, weights_for(names))
