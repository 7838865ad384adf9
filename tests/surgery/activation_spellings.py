"""Activations as people write them, with the name of the catalogue function that each equals."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Function = Callable[[Tensor], Tensor]


def tanh_by_exponentials(x: Tensor) -> Tensor:
    return (torch.exp(x) - torch.exp(-x)) / (torch.exp(x) + torch.exp(-x))


class NewGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


class MemoryEfficientSwish(torch.autograd.Function):
    """Saves its input only; its backward pass is handwritten and correct."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return gradient * s * (1 + x * (1 - s))


class ReluWithSlopeOneAtZero(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * (ctx.saved_tensors[0] >= 0)


class Holder(nn.Module):
    """A module with an activation as a method, and children."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Tanh(), nn.Identity())

    def act(self, x: Tensor) -> Tensor:
        return x * self.inner(F.softplus(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


SPELLINGS: dict[str, tuple[str, Function]] = {
    "relu by clamp": ("relu", lambda x: x.clamp(min=0)),
    "relu by clamp_min": ("relu", lambda x: torch.clamp_min(x, 0.0)),
    "relu by where": ("relu", lambda x: torch.where(x > 0, x, 0.0)),
    "relu by where and zeros": ("relu", lambda x: torch.where(x > 0, x, torch.zeros_like(x))),
    "relu by maximum": ("relu", lambda x: torch.maximum(x, torch.zeros(()))),
    "relu by a mask": ("relu", lambda x: x * (x > 0)),
    "relu by abs": ("relu", lambda x: (x + x.abs()) / 2),
    "relu by a root": ("relu", lambda x: (x + (x * x).sqrt()) / 2),
    "relu by masked_fill": ("relu", lambda x: x.masked_fill(x < 0, 0.0)),
    "relu in place": ("relu", lambda x: x.relu_()),
    "relu by clamp in place": ("relu", lambda x: x.clamp_(min=0)),
    "relu by a masked write": ("relu", lambda x: x.mul_((x > 0).to(x.dtype))),
    "relu by torch's threshold": ("relu", lambda x: F.threshold(x, 0.0, 0.0)),
    "relu as a module in place": ("relu", nn.ReLU(inplace=True)),
    "relu as a method of tensors": ("relu", torch.Tensor.relu),
    "relu as an operator": ("relu", torch.ops.aten.relu.default),
    "relu with slope one at zero": ("relu", ReluWithSlopeOneAtZero.apply),
    "relu of images only": ("relu", lambda x: F.relu(x) if x.shape[3] else x),
    "relu6 by clamp": ("relu6", lambda x: torch.clamp(x, 0, 6)),
    "relu6 by hardtanh": ("relu6", nn.Hardtanh(0.0, 6.0)),
    "squared relu": ("squared_relu", lambda x: F.relu(x) ** 2),
    "squared relu by a product": ("squared_relu", lambda x: x.clamp(min=0) * x),
    "leaky relu by where": ("leaky_relu", lambda x: torch.where(x > 0, x, 0.01 * x)),
    "leaky relu by maximum": ("leaky_relu", lambda x: torch.maximum(x, 0.01 * x)),
    "leaky relu with its slope bound": ("leaky_relu", functools.partial(F.leaky_relu, negative_slope=0.01)),
    "abs by where": ("abs", lambda x: torch.where(x < 0, -x, x)),
    "elu by where and exp": ("elu", lambda x: torch.where(x > 0, x, torch.exp(x) - 1)),
    "elu by minimum": ("elu", lambda x: x.clamp(min=0) + torch.expm1(x.clamp(max=0))),
    "selu by constants": ("selu", lambda x: 1.0507009873554805 * F.elu(x, 1.6732632423543772)),
    "tanh by exponentials": ("tanh", tanh_by_exponentials),
    "tanh by a sigmoid": ("tanh", lambda x: 2 * torch.sigmoid(2 * x) - 1),
    "sigmoid by exp": ("sigmoid", lambda x: 1 / (1 + torch.exp(-x))),
    "sigmoid by tanh": ("sigmoid", lambda x: 0.5 * (1 + torch.tanh(x / 2))),
    "hard sigmoid by relu6": ("hard_sigmoid", lambda x: F.relu6(x + 3) / 6),
    "hard sigmoid with a rounded slope": ("hard_sigmoid", lambda x: torch.clamp(0.16666667 * x + 0.5, 0, 1)),
    "hard tanh by clamp": ("hardtanh", lambda x: x.clamp(-1, 1)),
    "softsign": ("softsign", lambda x: x / (1 + x.abs())),
    "softplus by log": ("softplus", lambda x: torch.log(1 + torch.exp(x))),
    "softplus by logaddexp": ("softplus", lambda x: torch.logaddexp(x, torch.zeros(()).to(x.dtype))),
    "log of a sigmoid": ("logsigmoid", lambda x: -F.softplus(-x)),
    "soft shrinkage by sign": ("softshrink", lambda x: torch.sign(x) * F.relu(x.abs() - 0.5)),
    "x - tanh(x)": ("tanhshrink", lambda x: x - torch.tanh(x)),
    "x sigmoid(x)": ("silu", lambda x: x * torch.sigmoid(x)),
    "x sigmoid(x) by a quotient": ("silu", lambda x: x / (1 + torch.exp(-x))),
    "x sigmoid(x) in place": ("silu", lambda x: x.mul_(x.sigmoid())),
    "memory-efficient swish": ("silu", MemoryEfficientSwish.apply),
    "mish by softplus": ("mish", lambda x: x * torch.tanh(F.softplus(x))),
    "mish by exp": ("mish", lambda x: x * torch.tanh(torch.log(1 + torch.exp(x)))),
    "mish as a bound method": ("mish", Holder().act),
    "tanh as a module of modules": ("tanh", Holder()),
    "hard swish by relu6": ("hard_swish", lambda x: x * F.relu6(x + 3) / 6),
    "hard swish by hardtanh": ("hard_swish", lambda x: x * F.hardtanh(x + 3, 0.0, 6.0, inplace=True) / 6),
    "gelu by erf": ("gelu", lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))),
    "gelu by erfc": ("gelu", lambda x: 0.5 * x * torch.erfc(-x * math.sqrt(0.5))),
    "gelu by the normal distribution": ("gelu", lambda x: x * torch.special.ndtr(x)),
    "gelu by tanh": ("gelu_tanh", NewGELU()),
    "gelu by tanh with rounded constants": (
        "gelu_tanh",
        lambda x: 0.5 * x * (1 + torch.tanh(x * 0.7978845608 * (1 + 0.044715 * x * x))),
    ),
    "quick gelu": ("quick_gelu", lambda x: x * torch.sigmoid(1.702 * x)),
    "cos by sin": ("cos", lambda x: torch.sin(x + math.pi / 2)),
    "cbrt away from zero": ("signed_cbrt", lambda x: x / (x * x + 0.01) ** (1 / 3)),
}

WITHOUT_A_NAME: dict[str, Function] = {
    "gelu clipped at 10": lambda x: torch.clip(F.gelu(x), -10, 10),
    "relu clipped at 99": lambda x: x.clamp(0, 99),
    "relu of x - 1e-4": lambda x: F.relu(x - 1e-4),
    "leaky relu of slope 0.2": functools.partial(F.leaky_relu, negative_slope=0.2),
    "leaky relu of slope 0.0101": lambda x: torch.where(x > 0, x, 0.0101 * x),
    "elu of alpha 0.5": nn.ELU(0.5),
    "hard sigmoid of slope 0.2": lambda x: torch.clamp(0.2 * x + 0.5, 0, 1),
    "hard swish with another threshold": lambda x: x * F.relu6(x + 2.99) / 6,
    "hard mish": lambda x: 0.5 * x * (x + 2).clamp(0, 2),
    "gelu by a logistic curve": lambda x: x * torch.sigmoid(1.7 * x),
    "hardshrink that keeps its threshold": lambda x: torch.where(x.abs() >= 0.5, x, 0.0),
    "softplus of beta 2": nn.Softplus(beta=2.0),
    "shifted softplus": lambda x: F.softplus(x) - math.log(2.0),
    "scaled relu": lambda x: F.relu(x) * 1.7,
    "threshold": nn.Threshold(0.1, 20.0),
    "square": torch.square,
    "exponential": torch.exp,
    "logarithm, nan on half of the domain": torch.log,
    "root, nan on half of the domain": torch.sqrt,
    "arc sine, nan but on [-1, 1]": torch.asin,
    "reciprocal, infinite at zero": torch.reciprocal,
    "tangent": torch.tan,
    "fast sine": lambda x: torch.sin(300 * x),
    "sign": torch.sign,
    "round": torch.round,
    "step": lambda x: (x > 0).to(x.dtype),
    "relu with a tiny bump": lambda x: F.relu(x) + 1e-3 * torch.exp(-((x - 4) ** 2) * 100),
    "nearly linear": lambda x: x + 1e-4 * torch.sin(x),
}
