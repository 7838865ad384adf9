"""Oracles for the kernels: `mix` in float64 with its gradients, and cells looked up in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from nasact import activations
from nasact.mixture import Bank, Kernel, Layout
from nasact.mixture.table.basis import Grid, basis

ANALYTIC = (
    "hardshrink", "snake", "signed_cbrt", "leaky_slope", "prelu", "bounded_ramp", "signed_ramp", "xielu", "softmax",
)  # fmt: skip
"""Functions that the table cannot hold: they jump, have parameters, are too steep or couple features."""
TABULABLE = tuple(name for name in activations.names() if name not in ANALYTIC)
THIRTEEN = (
    "relu", "tanh", "sigmoid", "identity", "silu", "softsign", "softplus", "selu", "hard_sigmoid", "gelu", "elu",
    "sin", "cos",
)  # fmt: skip
"""The largest set of paper 001, without softmax."""
MIXED = ("relu", "tanh", "softmax", "prelu", "snake", "hardshrink", "cube", "original")

LEVELS: Mapping[str, Callable[[Sequence[int]], tuple[int, ...]]] = {
    "layer": lambda shape: (),
    "channel": lambda shape: (shape[1],),
    "neuron": lambda shape: tuple(shape[1:]),
}


def layout(level: str, shape: Sequence[int]) -> Layout:
    """The layout of `level` for an input of `shape`, with channels in dimension 1."""
    return Layout(level=level, shape=LEVELS[level](shape))


def make_bank(
    names: Sequence[str], where: Layout, kernel: str | Kernel = "auto", dtype: torch.dtype = torch.float32
) -> Bank:
    """A bank. Its "original", if `names` contains that, is a PReLU with a slope of 0.375."""
    original = nn.PReLU(init=0.375, dtype=dtype) if "original" in names else None
    return Bank(names, where, original=original, kernel=kernel, dtype=dtype)


def gradients(bank: Bank, x: Tensor, weights: Tensor, g: Tensor) -> dict[str, Tensor]:
    """The output and, for the cotangent g, the gradients of x, of the weights and of the bank's parameters."""
    x, weights = x.detach().requires_grad_(), weights.detach().requires_grad_()
    parameters = dict(bank.named_parameters())
    y = bank(x, weights)
    found = torch.autograd.grad(y, (x, weights, *parameters.values()), g)
    return {"y": y.detach(), **dict(zip(("x", "weights", *parameters), found, strict=True))}


def exact(bank: Bank) -> Bank:
    """The same bank in float64, computed by the reference kernel."""
    betas = {name: beta.detach().double() for name, beta in bank.betas.items()}
    original = None if bank.original is None else deepcopy(bank.original).double()
    return Bank(bank.names, bank.layout, original=original, betas=betas, kernel="reference", dtype=torch.float64)


def truth(bank: Bank, x: Tensor, weights: Tensor, g: Tensor) -> dict[str, Tensor]:
    """The expected result of `gradients`, by autograd of `mix` in float64."""
    return gradients(exact(bank), x.double(), weights.double(), g.double())


def assert_close(found: Mapping[str, Tensor], true: Mapping[str, Tensor], tolerance: float) -> None:
    """Assert that no tensor is off by more than `tolerance`, in units of its largest true entry or of 1."""
    assert found.keys() == true.keys()
    for name, expected in true.items():
        assert found[name].shape == expected.shape, name
        assert not expected.isnan().any(), name
        if expected.numel():
            error = float((found[name].double() - expected).abs().max() / expected.abs().max().clamp_min(1))
            assert error <= tolerance, f"{name} is off by {error:.2e}"


def double_backward(bank: Bank, x: Tensor, weights: Tensor, g: Tensor, a: Tensor) -> list[Tensor]:
    """The output, the gradients, and the gradients of the gradients."""
    x, weights = x.detach().requires_grad_(), weights.detach().requires_grad_()
    y = bank(x, weights)
    dx, dweights = torch.autograd.grad(y, (x, weights), g, create_graph=True)
    second = torch.autograd.grad((dx, dweights), (x, weights), (a, torch.ones_like(dweights)))
    return [y.detach(), dx.detach(), dweights.detach(), *second]


def candidates(names: Sequence[str], x: Tensor, order: int, grid: Grid | None = None) -> Tensor:
    """The cubics of the `order`-th derivatives at x, and 0 outside the cells: (K, *x.shape), float64."""
    grid = grid or Grid()
    table = basis(grid, tuple(names)).coefficients[order].double()
    u = (x.float() * (1 / grid.step)).double()
    inside = (u > -grid.below) & (u < grid.above)
    u = torch.where(inside, u, 0.0)
    t = u - u.trunc()
    cell = grid.below + u.trunc().long() + torch.sign(u).long()
    c0, c1, c2, c3 = table[:, cell].unbind(-1)
    return (c0 + t * (c1 + t * (c2 + t * c3))) * inside
