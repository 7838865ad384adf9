"""The checks of the zoo can fail: the log sees every kind of call, and a changed millionth is a difference."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from activation_calls import log_activation_calls
from conformance import check_conformance, check_equal, differences, perturb_constant_parameters, run
from torch import Tensor, nn
from torch.nn import functional

from nasact.supernet import relax

pytestmark = pytest.mark.models


class ManyCalls(nn.Module):
    """Applies activations as functions, methods and modules, and two clamps that are none."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.GELU()
        self.rnn = nn.LSTM(4, 4)
        self.dropout = nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(functional.relu(x)) + nn.Tanh()(x) + torch.special.expit(x) + x.clamp(min=0) + x.clamp(-1, 1)
        x = self.norm(self.dropout(x.sigmoid().mul(torch.erf(x)))) + functional.relu_(x + 1)
        return self.rnn(x)[0] * torch.tensor(2).clamp(min=0)


def test_the_log_has_every_activation_call_and_its_module() -> None:
    model = ManyCalls()
    with log_activation_calls(model) as log:
        model(torch.randn(3, 4))
    names = ["relu", "gelu", "tanh", "special_expit", "clamp", "sigmoid", "erf", "relu_", "lstm"]
    assert [call.function for call in log.calls] == names
    assert [call.module for call in log.calls if call.module] == ["act", "rnn"]
    assert {call.place.rpartition(" ")[2] for call in log.calls} == {"forward"}


def test_a_millionth_of_a_parameter_is_a_difference() -> None:
    torch.manual_seed(0)
    model = perturb_constant_parameters(ManyCalls())
    other, x = deepcopy(model), torch.randn(3, 4)
    assert not list(differences(run(deepcopy(model), (x,)), run(deepcopy(model), (x,))))
    with torch.no_grad():
        other.norm.weight.mul_(1 + 1e-6)
    assert {line.split()[0] for line in differences(run(model, (x,)), run(other, (x,)))} >= {"outputs", "gradients"}


def draw(module: nn.Module, args: object, output: object) -> None:
    """A forward hook that draws a number."""
    torch.rand(1)


def test_a_buffer_and_a_draw_are_differences() -> None:
    torch.manual_seed(0)
    model = ManyCalls()
    other, x = deepcopy(model), torch.randn(3, 4)
    other.norm.running_mean.add_(1.0)
    other.register_forward_hook(draw)
    lines = list(differences(run(model, (x,)), run(other, (x,))))
    assert [line.partition(":")[0] for line in lines] == [
        "buffers norm.running_mean",
        "the random number generators are in different states",
    ]


def test_a_supernet_of_other_weights_is_found() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    x = torch.randn(3, 4)
    check_conformance(model, (x,))
    supernet = relax(model, ["relu", "tanh"], normaliser="affine", init="uniform", kernel="reference")
    with pytest.raises(AssertionError, match="differences in train mode: outputs"):
        check_equal(model, supernet, (x,))
