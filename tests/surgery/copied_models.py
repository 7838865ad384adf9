"""Small models for the tests of copying, and what a pass computes."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(F.relu(self.a(x)))
        return y


class CallsModule:
    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, x: Tensor) -> Tensor:
        return self.module.b(self.module.a(x))

    def hook(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output + self.module.b.bias


def results(model: nn.Module, training: bool) -> dict[str, Tensor]:
    """The output of one pass, the gradients of input and parameters, and all tensors of the state afterwards."""
    model.train(training)
    model.zero_grad()
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    torch.manual_seed(2)
    y = model(x)
    y.square().sum().backward()
    assert x.grad is not None
    gradients = {f"gradient of {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"output": y.detach(), "gradient of x": x.grad, **gradients, **deepcopy(dict(model.state_dict()))}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
