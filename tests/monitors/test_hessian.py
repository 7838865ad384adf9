"""`hessian`: Lanczos against dense eigenvalues, the Hessian against torch's own, and the criterion of DARTS-ES."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from monitored import context, examples, history, supernet
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from nasact.errors import StudyError
from nasact.mixture import NORMALISERS
from nasact.monitors import Hessian
from nasact.monitors.hessian import EIGENVALUE
from nasact.monitors.lanczos import largest_eigenvalue
from nasact.supernet import Supernet, relax
from nasact.training.metrics import Loss

EVERYTHING = Hessian(every=1, examples=1000, iterations=1000)


def dense(net: Supernet, criterion: Loss = cross_entropy) -> Tensor:
    """The eigenvalues, rising, of the Hessian that torch builds of the loss in evaluation mode."""
    data, twin = examples(), net.eval()
    alphas = {name: alpha for name, alpha in twin.named_parameters() if name.endswith(".alpha")}
    assert alphas
    sizes = [alpha.numel() for alpha in alphas.values()]

    def loss(flat: Tensor) -> Tensor:
        given = {n: part.view_as(a) for (n, a), part in zip(alphas.items(), flat.split(sizes), strict=True)}
        return criterion(functional_call(twin, given, (data.x,)), data.y)

    flat = torch.cat([alpha.detach().reshape(-1) for alpha in alphas.values()])
    return torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat))


def measured(net: Supernet, monitor: Hessian = EVERYTHING, **changes: object) -> float:
    found = monitor.measure(context(net, **changes))
    assert list(found) == [EIGENVALUE] == list(Hessian.metrics)
    return found[EIGENVALUE]


@pytest.mark.parametrize("level", ["layer", "channel"])
@pytest.mark.parametrize("normaliser", NORMALISERS.names())
def test_the_eigenvalue_is_that_of_the_dense_hessian(normaliser: str, level: str) -> None:
    net = supernet(normaliser, level)
    assert measured(net) == pytest.approx(float(dense(net)[-1]), rel=1e-9, abs=1e-13)


def test_a_few_products_give_a_bound_from_below_that_rises() -> None:
    net = supernet(level="channel")
    exact = float(dense(net)[-1])
    found = [measured(net, replace(EVERYTHING, iterations=count)) for count in (1, 2, 4, 8, 16)]
    assert found == sorted(found)
    assert found[0] < 0.9 * exact
    assert found[-1] == pytest.approx(exact, rel=1e-2)
    assert all(value <= exact * (1 + 1e-9) for value in found)


def test_the_largest_eigenvalue_counts_with_its_sign() -> None:
    drawn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    for values in ([-9.0, -1.0, 0.0, 1.0, 2.0, 3.0], [-9.0, -8.0, -7.0, -3.0, -2.0, -2.0], [0.0] * 6):
        matrix = drawn @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ drawn.mT
        found = largest_eigenvalue(lambda v, matrix=matrix: matrix @ v, torch.ones(6), 6)
        assert found == pytest.approx(values[-1], abs=1e-9)


def test_measuring_leaves_no_trace_and_gives_the_same_bits_again() -> None:
    net = supernet("gumbel")
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    net.model.body[1].eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    modes, random = [module.training for module in net.modules()], torch.get_rng_state()
    first = measured(net)
    torch.manual_seed(99)
    assert measured(net) == first
    torch.set_rng_state(random)
    assert measured(net) == first
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(torch.equal(p.grad, torch.ones_like(p)) and p.requires_grad for p in net.parameters())


def test_dropped_candidates_are_no_directions() -> None:
    # one site, in which the output is linear: this loss curves downwards in every direction of alpha
    net = supernet("free", bank=("tanh", "identity", "silu"), exclude=("body*",))
    (mixture,) = net.mixtures().values()
    mixture.drop(["silu"])

    def curved_downwards(output: Tensor, y: Tensor) -> Tensor:
        return -output.square().sum()

    values = dense(net, curved_downwards)
    assert float(values[-1]) == pytest.approx(0, abs=1e-12)  # the zero of the one that was dropped is on top
    assert measured(net, loss=curved_downwards) == pytest.approx(float(values[-2]), rel=1e-9)
    assert float(values[-2]) < -1e-6


def test_a_temperature_alone_does_not_raise_the_eigenvalue() -> None:
    tempered = set()
    for name in NORMALISERS.names():
        net = supernet(name)
        hot = net.weights()
        net.set_temperature(0.25)
        if any(not torch.equal(weights, hot[site]) for site, weights in net.weights().items()):
            tempered.add(name)
    assert tempered == {one.name for one in NORMALISERS.values() if one.of_logits} != set()

    net, cold = supernet(), supernet()
    cold.set_temperature(0.25)
    with torch.no_grad():
        for alpha in cold.arch_parameters():
            alpha.mul_(0.25)
    assert measured(cold) == pytest.approx(measured(net), rel=1e-9)


def test_it_is_measured_every_so_often() -> None:
    monitor = Hessian(every=3)
    assert [epoch for epoch in range(1, 10) if monitor.measure(context(supernet(), epoch=epoch))] == [3, 6, 9]
    assert monitor.first_epoch() == 3


def test_a_hessian_that_is_not_finite_is_left_out() -> None:
    assert EVERYTHING.measure(context(supernet(), loss=lambda output, y: output.sum() * float("inf"))) == {}


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return grad * 2


class Stubborn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.last = nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(Once.apply(self.act(self.first(x))))


def test_a_model_that_cannot_be_differentiated_twice_is_refused_with_the_reason() -> None:
    net = relax(Stubborn().double(), ("relu", "tanh"), kernel="reference")
    expected = r"monitor 'hessian' cannot serve here: the model cannot be differentiated twice \(a function is marked"
    with pytest.raises(StudyError, match=expected):
        EVERYTHING.precheck(context(net))
    EVERYTHING.precheck(context(supernet()))


def test_attention_and_recurrence_are_measured() -> None:
    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.act = nn.Linear(4, 8), nn.ReLU()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.recurrent, self.last = nn.LSTM(8, 5, batch_first=True), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.act(self.first(x)).unsqueeze(1).repeat(1, 3, 1)
            y = self.recurrent(self.attention(y, y, y, need_weights=False)[0])[0]
            return self.last(y[:, -1])

    net = relax(Sequence().double(), ("relu", "tanh"), kernel="reference", partial=True)
    EVERYTHING.precheck(context(net))
    assert measured(net) != 0


# DARTS-ES: windows of 5, 4 values apart, the middle of the earlier one at epoch 10 or later


def test_a_steady_rise_is_a_collapse_and_names_the_middle_of_the_earlier_window() -> None:
    values = [1.0] * 11 + [1.9] * 3
    found = Hessian(every=2).detect_collapse(history(EIGENVALUE, values, every=2))
    assert found is not None
    # the last window holds two 1.0 and three 1.9: 1.54; the one 4 values earlier is all 1.0, about value 8
    assert (found.monitor, found.epoch, found.last_healthy_epoch) == ("hessian", 28, 16)
    assert "rose from 1 about epoch 16 by 1.54 times, more than 1.3" in found.reason


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ([1.0] * 11 + [1.3] * 3, {}),
        ([1.0, 1.0, 1.0, 1.0, 1.0, 3.0, 3.0, 3.0], {"start": 0}),
        ([1.0] * 4 + [3.0] * 5, {"every": 2}),
        ([-1.0] * 5 + [-3.0] * 4, {"start": 0}),
        ([0.0] * 5 + [3.0] * 4, {"start": 0}),
        ([3.0] * 6 + [1.0] * 6, {"start": 0}),
        ([], {}),
    ],
    ids=["too little", "too few", "too early", "negative", "zero", "falling", "nothing yet"],
)
def test_what_is_no_collapse(values: list[float], options: dict) -> None:
    assert Hessian(**options).detect_collapse(history(EIGENVALUE, values, Hessian(**options).every)) is None


def test_an_epoch_without_a_value_tells_nothing_new() -> None:
    told = history(EIGENVALUE, [1.0] * 11 + [1.9] * 3, every=2)
    assert Hessian(every=2).detect_collapse([*told, type(told[0])(29)]) is None


@pytest.mark.parametrize("warmup", [0, 3, 7])
@pytest.mark.parametrize("options", [{}, {"every": 3, "start": 20}, {"window": 2, "lag": 1, "start": 0}, {"every": 1}])
def test_the_earliest_epoch_is_the_first_at_which_a_steep_rise_is_told(options: dict, warmup: int) -> None:
    monitor = Hessian(**options)
    steep = history(EIGENVALUE, [2.0**index for index in range(60)], monitor.every)
    after = [epoch for epoch in steep if epoch.epoch > warmup]
    first = next(epoch.epoch for end, epoch in enumerate(after, 1) if monitor.detect_collapse(after[:end]) is not None)
    assert monitor.earliest_collapse(warmup) == first


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"every": 0}, "every must be at least 1, but got 0"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"factor": 0.0}, "factor must be a positive number"),
        ({"start": -1}, "start must be at least 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, line: str) -> None:
    with pytest.raises(StudyError, match=line):
        Hessian(**options)
