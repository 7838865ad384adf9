"""The recorded inputs of sites: all calls, bounded, reproducible, without changes to the supernet."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nasact
from nasact.redundancy import candidate_outputs, inputs, inspect_banks, record_site_inputs
from nasact.supernet import Supernet


class Net(nn.Module):
    """A module site that is called twice and a functional site; dropout and BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.block = nn.Sequential(nn.ReLU())
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.norm(self.conv(x)))
        x = self.block(x + 1)
        x = self.drop(F.silu(x).mean((2, 3)))
        return self.head(x)


@pytest.fixture
def net() -> Supernet:
    torch.manual_seed(0)
    return nasact.relax(Net(), ["relu", "tanh", "identity"], kernel="reference")


@pytest.fixture
def batch() -> Tensor:
    return torch.randn(16, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def test_site_inputs_are_the_outputs_of_the_layers_before(net: Supernet, batch: Tensor) -> None:
    recorded = record_site_inputs(net, batch)
    assert list(recorded) == list(net.mixtures())
    assert len(recorded) == 2
    with torch.no_grad():
        conv = net.model.conv(batch)
        first = F.batch_norm(conv, None, None, training=True)
        second = (torch.relu(first) + torch.tanh(first) + first) / 3 + 1
    act = recorded["block.0"]
    assert (act.calls, act.value_count) == (2, 2 * 16 * 4 * 36)
    torch.testing.assert_close(act.kept[0], first)
    torch.testing.assert_close(act.kept[1], second)
    assert act.low == pytest.approx(float(torch.minimum(first.min(), second.min())))
    assert act.high == pytest.approx(float(torch.maximum(first.max(), second.max())))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.usual = nn.Sequential(nn.ReLU())
        self.spare = nn.Sequential(nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.spare(x) if float(x.sum()) > 1e9 else self.usual(x)


def test_a_site_that_the_data_does_not_reach_is_reported(batch: Tensor) -> None:
    net = nasact.relax(Branching(), ["relu", "tanh"])
    recorded = record_site_inputs(net, batch)
    assert (recorded["usual.0"].reached, recorded["spare.0"].reached) == (True, False)
    assert (recorded["spare.0"].calls, recorded["spare.0"].value_count, recorded["spare.0"].kept) == (0, 0, ())
    assert math.isnan(recorded["spare.0"].low)
    bank = inspect_banks(net, batch)["spare.0"]
    assert bank.skip_reason == "the data does not reach it"
    assert bank.to_dict()["condition"] is None


def test_recording_changes_nothing(net: Supernet, batch: Tensor) -> None:
    net.model.drop.eval()
    net(batch).sum().backward()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    grads = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    modes = [module.training for module in net.modules()]
    hooks = [len(module._forward_pre_hooks) for module in net.modules()]
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    record_site_inputs(net, batch)
    assert grads
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(torch.equal(p.grad, grads[name]) for name, p in net.named_parameters() if p.grad is not None)
    assert modes == [module.training for module in net.modules()]
    assert hooks == [len(module._forward_pre_hooks) for module in net.modules()]
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])  # noqa: NPY002
    assert states[2] == random.getstate()


def test_recorded_inputs_do_not_depend_on_the_global_random_state(net: Supernet, batch: Tensor) -> None:
    dropped = nasact.relax(nn.Sequential(nn.Dropout(0.5), nn.ReLU()), ["relu", "tanh"])
    x = batch.flatten(1)
    first = record_site_inputs(dropped, x)["1"].kept[0]
    torch.manual_seed(99)
    assert torch.equal(first, record_site_inputs(dropped, x)["1"].kept[0])
    assert 0.2 < float((first == 0).double().mean()) < 0.8  # dropout is on, as in the search


def test_kept_inputs_are_bounded_and_include_the_extremes() -> None:
    net = nasact.relax(nn.Sequential(nn.ReLU()), ["relu", "tanh"])
    x = torch.randn(500, 300)
    x[123, 7], x[321, 9] = 50.0, -60.0
    recorded = record_site_inputs(net, x)["0"]
    assert recorded.value_count == x.numel()
    assert sum(kept.numel() for kept in recorded.kept) <= inputs.MAX_KEPT_VALUES + 2 * 300
    values, F_ = candidate_outputs(net.mixtures()["0"].bank, recorded)
    assert len(values) == len(F_) <= inputs.MAX_SAMPLED_VALUES + 2
    assert (float(values.max()), float(values.min())) == (50.0, -60.0)
    torch.testing.assert_close(F_, torch.stack([torch.relu(values), torch.tanh(values)], -1))


def test_kept_inputs_of_many_calls_are_bounded() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(nn.Tanh())

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(60):
                x = self.block(x) + 0.1
            return x

    recorded = record_site_inputs(nasact.relax(Loop(), ["tanh", "identity"]), torch.randn(64, 100))["block.0"]
    assert recorded.calls == 60
    assert recorded.value_count == 60 * 6400
    assert len(recorded.kept) > 30
    assert sum(kept.numel() for kept in recorded.kept) <= 2 * inputs.MAX_KEPT_VALUES


def test_coupled_and_parametric_functions_are_evaluated_as_the_mixture_does(batch: Tensor) -> None:
    net = nasact.relax(
        Net(), ["softmax", "prelu", "snake"], level="channel", include=["block.*"], example_input=batch[:2]
    )
    with torch.no_grad():
        net.mixtures()["block.0"].bank.betas["prelu_slope"].copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    recorded = record_site_inputs(net, batch)["block.0"]
    _, outputs = candidate_outputs(net.mixtures()["block.0"].bank, recorded)
    assert sum(kept.numel() for kept in recorded.kept) > len(outputs)  # a sample: compared as a set of rows
    rows = []
    for x in (kept.double() for kept in recorded.kept):
        slope = torch.tensor([0.1, 0.2, 0.3, 0.4]).double().view(1, 4, 1, 1)
        columns = [torch.softmax(x, 1), torch.where(x > 0, x, slope * x), x + torch.sin(x) ** 2]
        rows.append(torch.stack([column.reshape(-1) for column in columns], -1))
    expected = {tuple(row) for row in torch.cat(rows).mul(1e9).round().tolist()}
    assert {tuple(row) for row in outputs.mul(1e9).round().tolist()} <= expected
