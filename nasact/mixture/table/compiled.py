"""The table op as the custom op `nasact::mix`, which torch.compile calls without tracing into it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nasact.mixture.layout import Layout
from nasact.mixture.table.basis import Grid
from nasact.mixture.table.op import TabulatedBank, backward, double_backward_exact, forward


def mix(bank: TabulatedBank, x: Tensor, weights: Tensor) -> Tensor:
    """Compute `op.mix`, with the bank as plain arguments, which a graph can hold."""
    grid, layout = bank.grid, bank.layout
    numbers = [grid.low, grid.high, grid.tolerance]
    y: Tensor = torch.ops.nasact.mix(
        x, weights, ",".join(bank.names), numbers, grid.knots, layout.level, layout.channel_dim
    )
    return y


def _bank(weights: Tensor, names: str, numbers: list[float], knots: int, level: str, channel_dim: int) -> TabulatedBank:
    low, high, tolerance = numbers
    grid = Grid(low=low, high=high, knots=knots, tolerance=tolerance)
    layout = Layout(level=level, shape=tuple(weights.shape[:-1]), channel_dim=channel_dim)
    return TabulatedBank(grid, tuple(names.split(",")), layout)


@torch.library.custom_op("nasact::mix", mutates_args=())
def _mix(
    x: Tensor, weights: Tensor, names: str, numbers: list[float], knots: int, level: str, channel_dim: int
) -> Tensor:
    return forward(_bank(weights, names, numbers, knots, level, channel_dim), x, weights)


@torch.library.custom_op("nasact::mix_backward", mutates_args=())
def _mix_backward(
    x: Tensor, weights: Tensor, g: Tensor, names: str, numbers: list[float], knots: int, level: str, channel_dim: int
) -> tuple[Tensor, Tensor]:
    bank = _bank(weights, names, numbers, knots, level, channel_dim)
    dx, dweights = backward(bank, x, weights, g, with_dp=True)
    assert dweights is not None
    return dx, dweights


@_mix.register_fake
def _fake(x: Tensor, weights: Tensor, *static: Any) -> Tensor:
    return torch.empty_like(x)


@_mix_backward.register_fake
def _fake_backward(x: Tensor, weights: Tensor, g: Tensor, *static: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), weights.new_empty(weights.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    tensors = [each for each in inputs if isinstance(each, Tensor)]
    ctx.static = inputs[len(tensors) :]
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    dx, dweights = torch.ops.nasact.mix_backward(*ctx.saved_tensors, g, *ctx.static)
    return dx, dweights, *(None for _ in ctx.static)


def _double_backward(ctx: Any, a: Tensor, c: Tensor) -> tuple[Any, ...]:
    x, weights, g = ctx.saved_tensors
    return *double_backward_exact(_bank(weights, *ctx.static), x, weights, g, a, c), *(None for _ in ctx.static)


_mix.register_autograd(_backward, setup_context=_save)
_mix_backward.register_autograd(_double_backward, setup_context=_save)
