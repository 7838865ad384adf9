"""`hessian`: Lanczos against dense eigenvalues, the Hessian against torch's, and the criterion of DARTS-ES."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from monitor_problems import context, examples, history, supernet
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from nasact.errors import StudyError
from nasact.mixture import NORMALISERS
from nasact.monitors.hessian import EIGENVALUE, Hessian
from nasact.monitors.lanczos import largest_eigenvalue
from nasact.supernet import Supernet, relax
from nasact.training.metrics import Loss

EXACT = Hessian(every=1, examples=1000, iterations=1000)


def dense_eigenvalues(net: Supernet, criterion: Loss = cross_entropy) -> Tensor:
    """The eigenvalues, in rising order, of the dense Hessian that torch computes in evaluation mode."""
    data, net = examples(), net.eval()
    alphas = {name: alpha for name, alpha in net.named_parameters() if name.endswith(".alpha")}
    assert alphas
    sizes = [alpha.numel() for alpha in alphas.values()]

    def loss(flat: Tensor) -> Tensor:
        values = {n: part.view_as(a) for (n, a), part in zip(alphas.items(), flat.split(sizes), strict=True)}
        return criterion(functional_call(net, values, (data.x,)), data.y)

    flat = torch.cat([alpha.detach().reshape(-1) for alpha in alphas.values()])
    return torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat))


def measure(net: Supernet, monitor: Hessian = EXACT, **changes: object) -> float:
    metrics = monitor.measure(context(net, **changes))
    assert list(metrics) == [EIGENVALUE] == list(Hessian.metrics)
    return metrics[EIGENVALUE]


@pytest.mark.parametrize("level", ["layer", "channel"])
@pytest.mark.parametrize("normaliser", NORMALISERS.names())
def test_the_eigenvalue_is_that_of_the_dense_hessian(normaliser: str, level: str) -> None:
    net = supernet(normaliser, level)
    assert measure(net) == pytest.approx(float(dense_eigenvalues(net)[-1]), rel=1e-9, abs=1e-13)


def test_a_few_products_give_a_rising_lower_bound() -> None:
    net = supernet(level="channel")
    exact = float(dense_eigenvalues(net)[-1])
    bounds = [measure(net, replace(EXACT, iterations=count)) for count in (1, 2, 4, 8, 16)]
    assert bounds == sorted(bounds)
    assert bounds[0] < 0.9 * exact
    assert bounds[-1] == pytest.approx(exact, rel=1e-2)
    assert all(bound <= exact * (1 + 1e-9) for bound in bounds)


def test_the_largest_eigenvalue_is_the_largest_with_its_sign() -> None:
    Q = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    for values in ([-9.0, -1.0, 0.0, 1.0, 2.0, 3.0], [-9.0, -8.0, -7.0, -3.0, -2.0, -2.0], [0.0] * 6):
        matrix = Q @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ Q.mT
        found = largest_eigenvalue(lambda v, matrix=matrix: matrix @ v, torch.ones(6), 6)
        assert found == pytest.approx(values[-1], abs=1e-9)


def test_measuring_changes_nothing_and_is_reproducible_to_the_bit() -> None:
    net = supernet("gumbel")
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    net.model.body[1].eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    modes, random = [module.training for module in net.modules()], torch.get_rng_state()
    first = measure(net)
    torch.manual_seed(99)
    assert measure(net) == first
    torch.set_rng_state(random)
    assert measure(net) == first
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(torch.equal(p.grad, torch.ones_like(p)) and p.requires_grad for p in net.parameters())


def test_dropped_candidates_are_no_directions_of_the_hessian() -> None:
    # one site whose mixture the output depends on linearly: this loss is concave in every direction of alpha
    net = supernet("free", bank=("tanh", "identity", "silu"), exclude=("body*",))
    (mixture,) = net.mixtures().values()
    mixture.drop(["silu"])

    def concave(output: Tensor, y: Tensor) -> Tensor:
        return -output.square().sum()

    values = dense_eigenvalues(net, concave)
    assert float(values[-1]) == pytest.approx(0, abs=1e-12)  # the zero of the dropped candidate is the largest
    assert measure(net, loss=concave) == pytest.approx(float(values[-2]), rel=1e-9)
    assert float(values[-2]) < -1e-6


def test_a_falling_temperature_does_not_raise_the_eigenvalue() -> None:
    divide_by_temperature = set()
    for name in NORMALISERS.names():
        net = supernet(name)
        hot = net.weights()
        net.set_temperature(0.25)
        if any(not torch.equal(weights, hot[site]) for site, weights in net.weights().items()):
            divide_by_temperature.add(name)
    declared = {each.name for each in NORMALISERS.values() if each.function_of_alpha_over_t}
    assert divide_by_temperature == declared != set()

    net, cold = supernet(), supernet()
    cold.set_temperature(0.25)
    with torch.no_grad():
        for alpha in cold.arch_parameters():
            alpha.mul_(0.25)
    assert measure(cold) == pytest.approx(measure(net), rel=1e-9)


def test_it_is_measured_after_every_nth_epoch() -> None:
    monitor = Hessian(every=3)
    assert [epoch for epoch in range(1, 10) if monitor.measure(context(supernet(), epoch=epoch))] == [3, 6, 9]
    assert monitor.first_epoch() == 3


def test_a_hessian_that_is_not_finite_is_left_out() -> None:
    assert EXACT.measure(context(supernet(), loss=lambda output, y: output.sum() * float("inf"))) == {}


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return grad * 2


class NotTwiceDifferentiable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.last = nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(Once.apply(self.act(self.first(x))))


def test_a_model_that_cannot_be_differentiated_twice_is_refused_with_the_reason() -> None:
    net = relax(NotTwiceDifferentiable().double(), ("relu", "tanh"), kernel="reference")
    expected = r"monitor 'hessian' cannot measure this model: it cannot be differentiated twice \(a function is marked"
    with pytest.raises(StudyError, match=expected):
        EXACT.precheck(context(net))
    EXACT.precheck(context(supernet()))


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
    EXACT.precheck(context(net))
    assert measure(net) != 0


# DARTS-ES: two windows of 5 values, 4 values apart, the middle of the earlier one at epoch 10 or later


def test_a_rise_is_a_collapse_and_the_middle_of_the_earlier_window_is_the_last_healthy_epoch() -> None:
    values = [1.0] * 11 + [1.9] * 3
    collapse = Hessian(every=2).detect_collapse(history(EIGENVALUE, values, every=2))
    assert collapse is not None
    # the last window has two 1.0 and three 1.9, mean 1.54; the window 4 values earlier only 1.0, its middle is value 8
    assert (collapse.monitor, collapse.epoch, collapse.last_healthy_epoch) == ("hessian", 28, 16)
    assert "rose from 1 about epoch 16 by 1.54 times, more than 1.3" in collapse.reason


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
    ids=["small rise", "too few values", "too early", "negative", "zero", "falling", "no values"],
)
def test_these_histories_are_no_collapse(values: list[float], options: dict) -> None:
    assert Hessian(**options).detect_collapse(history(EIGENVALUE, values, Hessian(**options).every)) is None


def test_an_epoch_without_a_value_is_no_collapse() -> None:
    epochs = history(EIGENVALUE, [1.0] * 11 + [1.9] * 3, every=2)
    assert Hessian(every=2).detect_collapse([*epochs, type(epochs[0])(29)]) is None


@pytest.mark.parametrize("warmup", [0, 3, 7])
@pytest.mark.parametrize("options", [{}, {"every": 3, "start": 20}, {"window": 2, "lag": 1, "start": 0}, {"every": 1}])
def test_the_earliest_collapse_is_the_first_detection_of_a_steep_rise(options: dict, warmup: int) -> None:
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
