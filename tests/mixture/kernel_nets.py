"""A small network with mixtures, its copy with the reference kernel in float64, and the distance of two results."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasact.mixture import Bank, Kernel, as_kernel
from nasact.supernet import Supernet, relax

SPACE = ("relu", "tanh", "gelu", "prelu")
"""Three candidates that the table can hold, and a candidate that it cannot hold."""
KERNELS = ("auto", "table", "fused")
LEVELS = ("layer", "channel", "neuron")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.act = nn.ReLU()
        self.last = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(F.relu(self.second(self.act(self.first(x)))).flatten(1))
        return y


def inputs(batch: int = 5) -> Tensor:
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def supernet(kernel: str | Kernel, level: str = "layer", space: tuple[str, ...] = SPACE) -> Supernet:
    torch.manual_seed(0)
    net = relax(Net(), space, level=level, kernel=kernel, example_input=inputs(2))
    with torch.no_grad():
        for alpha in net.arch_parameters():
            alpha.normal_()
    return net


def reference_copy(module: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A copy of the module whose mixtures are computed by the reference kernel."""
    copied = deepcopy(module).to(dtype)
    for bank in copied.modules():
        if isinstance(bank, Bank):
            bank.kernel = as_kernel("reference")
            bank.op = bank.kernel.prepare(bank.names, bank.layout, bank.where)
    return copied


def flat(found: Any) -> list[Tensor]:
    """The tensors of a result: of a tensor, or of a nested dictionary or sequence."""
    if isinstance(found, Tensor):
        return [found.detach()]
    parts = found.values() if isinstance(found, dict) else found
    return [tensor for part in parts for tensor in flat(part)]


def distance(found: Any, true: Any) -> float:
    """The largest difference of corresponding tensors, in units of the largest entry of each true tensor."""
    pairs = list(zip(flat(found), flat(true), strict=True))
    assert pairs
    assert all(one.shape == other.shape for one, other in pairs)
    assert all(bool(other.isfinite().all()) for _, other in pairs)
    return max(float((one.double() - other).abs().max() / other.abs().max().clamp_min(1e-6)) for one, other in pairs)


def all_gradients(module: nn.Module, x: Tensor) -> list[Tensor]:
    """The output, and the gradients of the sum of its squares for x and for every parameter."""
    x = x.detach().requires_grad_()
    y = module(x)
    return [y.detach(), *torch.autograd.grad(y.float().square().sum(), (x, *module.parameters()))]
