"""Custom autograd functions, hooks of tensors and checkpointing around activations stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from equivalence import Case, Net, Table, claims
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

AUTOGRAD = Table()


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return -g


class ScaledGradient(torch.autograd.Function):
    """Its gradient depends on an argument that is no tensor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return g * ctx.scale, None


class Rounded(torch.autograd.Function):
    """A straight-through estimator."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x * 4) / 4

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g


class HiddenRelu(torch.autograd.Function):
    """An activation with a gradient of its own (guided backpropagation)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.relu(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return g.clamp(min=0) * (x > 0)


class LeanSilu(torch.autograd.Function):
    """An activation whose handwritten gradient is its true gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return g * (s * (1 + x * (1 - s)))


class Lean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return LeanSilu.apply(x)


@AUTOGRAD("relu")
class ReversedAfter(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(Reverse.apply(F.relu(self.a(x))))


@AUTOGRAD("relu")
class ReversedBefore(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(Reverse.apply(self.a(x))))


@AUTOGRAD("tanh", "relu")
class ReversedBetween(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(Reverse.apply(self.a(x).tanh()).relu())


@AUTOGRAD("relu")
class ScaledByAnAttribute(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(ScaledGradient.apply(F.relu(self.a(x)), 0.25 if self.training else 0.5))


@AUTOGRAD("tanh", verdict="either", reason="Rounded.*gradient of its own")
class StraightThrough(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(Rounded.apply(torch.tanh(self.a(x))))


@AUTOGRAD("tanh", gates=("original",), moves=False)
class GuidedRelu(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(HiddenRelu.apply(self.a(x))))


@AUTOGRAD("silu", moves=False, tolerance=1e-5)
class FunctionInAModule(Net):
    def __init__(self) -> None:
        super().__init__()
        self.act = Lean()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.act(self.a(x)))


@AUTOGRAD("silu", "relu", moves=False, tolerance=1e-5)
class FunctionCalledDirectly(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(LeanSilu.apply(self.a(x)) - 0.1))


@AUTOGRAD("relu")
class HookOnAHiddenTensor(Net):
    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        if h.requires_grad:
            h.register_hook(lambda g: g * 3)
        return self.b(h)


@AUTOGRAD("relu")
class DetachedShortcut(Net):
    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        return self.b(h + (h.round() - h).detach())


@AUTOGRAD("relu")
class GradientInForward(Net):
    """The forward differentiates itself (a gradient penalty, an energy model)."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            y = self.b(F.relu(self.a(x)))
            (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        return y, slope


@AUTOGRAD("relu", moves=False)
class Checkpointed(Net):
    def inner(self, x: Tensor) -> Tensor:
        return F.dropout(F.relu(self.a(x)), 0.3, self.training)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(checkpoint(self.inner, x, use_reentrant=False))


@AUTOGRAD("relu", moves=False)
class CheckpointedClosure(Net):
    def forward(self, x: Tensor) -> Tensor:
        def inner(*tensors: Tensor) -> Tensor:
            return F.relu(self.a(torch.cat(tensors)))

        return self.b(checkpoint(inner, x, x + 1, use_reentrant=False))


@AUTOGRAD.parametrize()
@claims
def test_gradients_of_ones_own(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


def test_how_many_cases_there_are() -> None:
    assert len(AUTOGRAD.cases) == 13
