"""Convolutions whose gradient's gradient computes what is asked for, and no more. Knows torch's kernels, no losses.

torch's own double backward of a convolution computes a convolution for the input and one for the weight even where
neither is asked for. The mixed derivative of a second-order step asks for alpha alone: there that is a third of the
convolutions of the pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nasact.mixture.kernels.context import asked_for, transformed, transformed_back

Gradients: TypeAlias = tuple[Tensor | None, Tensor | None, Tensor | None]

_DIMENSIONS: Mapping[Callable[..., Any], int] = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}


class Convolutions(TorchFunctionMode):
    """Inside, torch.conv1d, 2d and 3d (so nn.Conv1d, ...) are computed by `convolve`."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        dimensions = _DIMENSIONS.get(function)
        if dimensions is None:
            return function(*args, **(kwargs or {}))
        return convolve(function, dimensions, *args, **(kwargs or {}))


def convolve(
    function: Callable[..., Tensor],
    dimensions: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """`function`, one of torch's convolutions, with the same numbers and gradients of every order."""
    tensors = (input, weight) if bias is None else (input, weight, bias)
    usual = (
        isinstance(padding, str)
        or input.dim() != dimensions + 2
        or torch.is_autocast_enabled(input.device.type)
        or torch.compiler.is_compiling()
        or transformed(*tensors)
    )
    if usual:
        return function(input, weight, bias, stride, padding, dilation, groups)
    assert not isinstance(padding, str)
    each = (_each(given, dimensions) for given in (stride, padding, dilation))
    convolved: Tensor = _Convolution.apply(_Geometry(*each, groups), input, weight, bias)
    return convolved


def _each(given: int | Sequence[int], dimensions: int) -> list[int]:
    numbers = [given] if isinstance(given, int) else list(given)
    return numbers * dimensions if len(numbers) == 1 else numbers


@dataclass(frozen=True)
class _Geometry:
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        nowhere = [0] * len(self.stride)
        return torch.ops.aten.convolution.default(
            x, weight, bias, self.stride, self.padding, self.dilation, False, nowhere, self.groups
        )

    def backward(self, g: Tensor, x: Tensor, weight: Tensor, asked: Sequence[bool]) -> Gradients:
        """The gradients of x, weight and bias, where asked for; linear in g, and in x (of weight) or weight (of x)."""
        sizes, nowhere = [weight.shape[0]], [0] * len(self.stride)
        found: Gradients = torch.ops.aten.convolution_backward.default(
            g, x, weight, sizes, self.stride, self.padding, self.dilation, False, nowhere, self.groups, list(asked)
        )
        return found


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, geometry: _Geometry, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.geometry = geometry
        ctx.save_for_backward(x, weight)
        return geometry.forward(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        x, weight = ctx.saved_tensors
        asked = (asked_for(x), asked_for(weight), ctx.needs_input_grad[3])
        if torch.is_grad_enabled() and not transformed_back(x, weight, g):
            return None, *_ConvolutionBackward.apply(ctx.geometry, asked, g, x, weight)
        return None, *ctx.geometry.backward(g, x, weight, asked)


class _ConvolutionBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, geometry: _Geometry, asked: Sequence[bool], g: Tensor, x: Tensor, weight: Tensor) -> Gradients:
        ctx.geometry = geometry
        ctx.save_for_backward(g, x, weight)
        ctx.set_materialize_grads(False)
        return geometry.backward(g, x, weight, asked)

    @staticmethod
    def backward(ctx: Any, to_x: Tensor | None, to_weight: Tensor | None, to_bias: Tensor | None) -> tuple[Any, ...]:
        g, x, weight = ctx.saved_tensors
        geometry: _Geometry = ctx.geometry
        from_g = from_x = from_weight = None
        if asked_for(g):
            parts = [] if to_x is None else [geometry.forward(to_x, weight, to_bias)]
            if to_weight is not None:
                parts.append(geometry.forward(x, to_weight, to_bias if to_x is None else None))
            if not parts and to_bias is not None:
                parts = [to_bias.view(1, -1, *(1 for _ in geometry.stride)).expand_as(g)]
            from_g = sum(parts[1:], start=parts[0]) if parts else None
        if to_weight is not None and asked_for(x):
            from_x = geometry.backward(g, x, to_weight, (True, False, False))[0]
        if to_x is not None and asked_for(weight):
            from_weight = geometry.backward(g, to_x, weight, (False, True, False))[1]
        return None, None, from_g, from_x, from_weight
