"""A small network with mixtures in it, its twin by the reference in float64, and how far two results are apart."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasact.mixture import Bank, Kernel, as_kernel
from nasact.supernet import Supernet, relax

SPACE = ("relu", "tanh", "gelu", "prelu")
"""Three that the table holds and one that it does not."""
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
    made = relax(Net(), space, level=level, kernel=kernel, example_input=inputs(2))
    with torch.no_grad():
        for alpha in made.arch_parameters():
            alpha.normal_()
    return made


def twin(module: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The same module, its mixtures computed by the reference."""
    made = deepcopy(module).to(dtype)
    for bank in made.modules():
        if isinstance(bank, Bank):
            bank.kernel = as_kernel("reference")
            bank.op = bank.kernel.prepare(bank.names, bank.layout, bank.where)
    return made


def flat(found: Any) -> list[Tensor]:
    """The tensors of a result, whatever holds them."""
    if isinstance(found, Tensor):
        return [found.detach()]
    parts = found.values() if isinstance(found, dict) else found
    return [tensor for part in parts for tensor in flat(part)]


def apart(found: Any, true: Any) -> float:
    """The largest difference, in units of the largest entry of each true tensor."""
    pairs = list(zip(flat(found), flat(true), strict=True))
    assert pairs
    assert all(one.shape == other.shape for one, other in pairs)
    assert all(bool(other.isfinite().all()) for _, other in pairs)
    return max(float((one.double() - other).abs().max() / other.abs().max().clamp_min(1e-6)) for one, other in pairs)


def all_gradients(module: nn.Module, x: Tensor) -> list[Tensor]:
    """The output and the gradients of its squares: of x and of every parameter."""
    x = x.detach().requires_grad_()
    y = module(x)
    return [y.detach(), *torch.autograd.grad(y.float().square().sum(), (x, *module.parameters()))]
