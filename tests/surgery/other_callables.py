"""Callables of one tensor that are no activations, by kind."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any

import torch
from numpy.random import mtrand
from torch import Tensor, nn
from torch.nn import functional as F

Function = Callable[[Tensor], Tensor]


class OwnGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clone()


class Reversal(OwnGradient):
    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


class ClippedGradient(OwnGradient):
    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.clamp(-1, 1)


class GuidedRelu(OwnGradient):
    """Guided backpropagation: the gradient of relu, without its negative part."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.relu(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return F.relu(gradient) * (ctx.saved_tensors[0] > 0)


class SurrogateSpike(OwnGradient):
    """A step with the gradient of a sigmoid, as in spiking networks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        s = torch.sigmoid(ctx.saved_tensors[0])
        return gradient * s * (1 - s)


class GeluWithTheGradientOfSilu(OwnGradient):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.gelu(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        s = torch.sigmoid(ctx.saved_tensors[0])
        return gradient * s * (1 + ctx.saved_tensors[0] * (1 - s))


OWN_GRADIENT: dict[str, Function] = {
    "gradient reversal": Reversal.apply,
    "gradient reversal in float32": lambda x: Reversal.apply(x.float()),
    "clipped gradient": ClippedGradient.apply,
    "guided relu": GuidedRelu.apply,
    "surrogate spike": SurrogateSpike.apply,
    "gelu with the gradient of silu": GeluWithTheGradientOfSilu.apply,
    "straight-through round": lambda x: x + (x.round() - x).detach(),
    "straight-through round in float32": lambda x: x + (x.float().round() - x.float()).detach(),
    "straight-through sign": lambda x: x.clamp(-1, 1) + (x.sign() - x.clamp(-1, 1)).detach(),
    "no gradient beyond 40": lambda x: torch.where(x > 40, F.relu(x).detach(), F.relu(x)),
    "half of the gradient": lambda x: F.relu(x) / 2 + (F.relu(x) / 2).detach(),
    "rounding to 16 bits": lambda x: F.gelu(x.bfloat16()).to(x.dtype),
}
NO_GRADIENT: dict[str, Function] = {
    "detached": lambda x: torch.tanh(x).detach(),
    "under no_grad": torch.no_grad()(F.relu),
    "identity detached": lambda x: x.detach(),
}

LINEAR: dict[str, Function] = {
    "identity": lambda x: x,
    "identity as a module": nn.Identity(),
    "copy": torch.clone,
    "scale": lambda x: 0.3 * x,
    "scale in place": lambda x: x.mul_(-2),
    "affine": lambda x: 2 * x - 5,
    "affine in float32": lambda x: (2 * x.float() - 5).to(x.dtype),
    "dropout that is off": lambda x: F.dropout(x, 0.5, training=False),
    "dropout of probability 0": nn.Dropout(0.0),
    "clamp of half precision": lambda x: x.clamp(-65504, 65504),
    "mean of one": nn.AvgPool2d(1),
}


class NoiseInTrainMode(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) + (0.1 * torch.randn_like(x) if self.training else 0.0)


class LayerDrop(nn.Module):
    """Draws from Python's generator, and has the same values whatever it draws."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) if random.random() < 1.0 else x


class Stateful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return F.relu(x) * self.calls


RANDOM: dict[str, Function] = {
    "dropout": nn.Dropout(0.5),
    "dropout as a function": F.dropout,
    "dropout in eval mode now": nn.Dropout(0.5).eval(),
    "alpha dropout": nn.AlphaDropout(0.1),
    "random leaky relu": nn.RReLU(),
    "noise": lambda x: F.relu(x) + torch.rand_like(x),
    "noise in train mode": NoiseInTrainMode().eval(),
    "noise of numpy": lambda x: x + mtrand.standard_normal(),
    "layer drop": LayerDrop(),
    "layer drop by numpy": lambda x: F.relu(x) if mtrand.random_sample() < 1.0 else x,
    "stateful": Stateful(),
}


class TrainOnlySin(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x) if self.training else torch.tanh(x)


COUPLED: dict[str, Function] = {
    "softmax": nn.Softmax(dim=-1),
    "softmax of the first dimension": functools.partial(torch.softmax, dim=0),
    "softmax over channels": functools.partial(torch.softmax, dim=1),
    "log softmax": functools.partial(F.log_softmax, dim=-1),
    "layer norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "instance norm": nn.InstanceNorm2d(12),
    "group norm": lambda x: F.group_norm(x, 2),
    "response norm": nn.LocalResponseNorm(2),
    "unit length": F.normalize,
    "scaled by the largest": lambda x: x / x.abs().max(),
    "relu minus its mean": lambda x: F.relu(x) - F.relu(x).mean(),
    "relu minus a small part of its mean": lambda x: F.relu(x) - 1e-3 * F.relu(x).mean(),
    "scaled by the size": lambda x: F.relu(x) / x.shape[-1],
    "a branch by the sum": lambda x: F.relu(x) if x.sum() > 0 else F.gelu(x),
    "a branch by the largest": lambda x: F.relu(x) if x.max() > 50 else x,
    "GLU": nn.GLU(dim=-1),
    "GEGLU": lambda x: x.chunk(2, dim=-1)[0] * F.gelu(x.chunk(2, dim=-1)[1]),
    "CReLU": lambda x: torch.cat([F.relu(x), F.relu(-x)], dim=-1),
    "cumulative sum": functools.partial(torch.cumsum, dim=-1),
    "running maximum": lambda x: torch.cummax(x, dim=-1).values,
    "sorted": lambda x: x.sort(dim=-1).values,
    "flip": lambda x: F.relu(x).flip(-1),
    "flip of channels": lambda x: F.relu(x).flip(1),
    "shift": lambda x: F.relu(x).roll(1, -1),
    "transposed": lambda x: F.relu(x).transpose(-1, -2),
    "flattened": nn.Flatten(),
    "mean": lambda x: x.mean(),
    "max pooling": lambda x: F.max_pool2d(x, 3, 1, 1),
    "relu on half of the channels": lambda x: torch.cat([F.relu(x[:, :3]), x[:, 3:]], dim=1),
    "relu but of the first element": lambda x: torch.cat([x.flatten()[:1], F.relu(x.flatten()[1:])]).reshape(x.shape),
    "different in train mode": TrainOnlySin(),
}


class CustomError(Exception):
    pass


def raises(error: BaseException) -> Function:
    def function(x: Tensor) -> Tensor:
        raise error

    return function


class WrongBackward(OwnGradient):
    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise NotImplementedError("only\nforward")


def overwrites(x: Tensor) -> Tensor:
    x.mul_(2)
    return F.relu(x)


class NoCopy(nn.Module):
    def __deepcopy__(self, memo: object) -> NoCopy:
        raise TypeError("cannot be copied")

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


def draws_and_fails(x: Tensor) -> Tensor:
    raise ValueError(f"drawn: {torch.rand_like(x) is None}")


class NoModes(nn.Module):
    def train(self, mode: bool = True) -> NoModes:
        raise RuntimeError("frozen")

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


FAILS: dict[str, tuple[Any, str]] = {
    "its own exception": (raises(CustomError("two\n lines")), "it fails: CustomError: two lines"),
    "system exit": (raises(SystemExit(3)), "it fails: SystemExit: 3"),
    "an exception without a message": (raises(AssertionError()), "it fails: AssertionError"),
    "random numbers before it fails": (draws_and_fails, "it fails: ValueError: drawn: False"),
    "two arguments": (lambda x, y: x + y, "it fails: TypeError: "),
    "fixed size": (lambda x: F.relu(x) + torch.zeros(7), "it fails: RuntimeError: The size of tensor a"),
    "no backward pass": (WrongBackward.apply, "its backward pass fails: NotImplementedError: only forward"),
    "a pair": (lambda x: (x, x), "it returns tuple, not a tensor"),
    "nothing": (lambda x: None, "it returns NoneType, not a tensor"),
    "a number": (lambda x: 1.0, "it returns float, not a tensor"),
    "a class": (nn.ReLU, "it returns ReLU, not a tensor"),
    "a comparison": (lambda x: x > 0, "it returns torch.bool on cpu for torch.float32 on cpu"),
    "integers": (lambda x: x.long(), "it returns torch.int64 on cpu for torch.float32 on cpu"),
    "half precision": (lambda x: F.relu(x).bfloat16(), "it returns torch.bfloat16 on cpu for torch.float32 on cpu"),
    "complex": (torch.fft.fft, "it returns torch.complex64 on cpu for torch.float32 on cpu"),
    "meta": (lambda x: x.to("meta"), "it returns torch.float32 on meta for torch.float32 on cpu"),
    "sparse": (lambda x: x.to_sparse(), "it returns sparse torch.float32 on cpu for torch.float32 on cpu"),
    "no modes": (NoModes(), "its mode cannot be set: RuntimeError: frozen"),
    "overwrites its input": (overwrites, "it overwrites its input with other values than its result"),
    "parameters": (nn.PReLU(), "it has parameters or buffers of its own"),
    "buffers": (nn.BatchNorm1d(3, affine=False), "it has parameters or buffers of its own"),
    "a method of a module with parameters": (nn.Linear(3, 3).forward, "it has parameters or buffers of its own"),
    "no copy": (NoCopy(), "it cannot be copied: TypeError: cannot be copied"),
    "no callable": (3, "it fails: TypeError: 'int' object is not callable"),
}
