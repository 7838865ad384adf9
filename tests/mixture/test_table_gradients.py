"""Gradients of the table that are requested one by one, and ranges that end at zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from mixture_oracles import LEVELS, THIRTEEN, assert_close, double_backward, exact, gradients, layout, make_bank, truth
from torch import Tensor

from nasact.mixture import Bank
from nasact.mixture.kernels.table import Table
from nasact.mixture.table import native, op
from nasact.mixture.torch_transforms import needs_gradient

every_level = pytest.mark.parametrize("level", LEVELS)
code = pytest.mark.parametrize("plainly", [False, True], ids=["native", "plain torch"])
SHAPE = (64, 3, 11)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def sums(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each backward pass, whether it sums the gradient of the weights."""
    calls: list[bool] = []

    def recording(original: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(*args: Any, with_dp: bool) -> Any:
            calls.append(with_dp)
            return original(*args, with_dp=with_dp)

        return recorded

    for name in ("backward", "_double_backward"):
        monkeypatch.setattr(op, name, recording(getattr(op, name)))
    return calls


def mixture(level: str) -> tuple[Bank, Tensor, Tensor, Tensor]:
    """A bank, an input, its weights (no leaves of the graph), and the alphas that they are computed from."""
    bank = make_bank(THIRTEEN, layout(level, SHAPE), Table())
    alpha = torch.randn(*bank.layout.shape, len(THIRTEEN), requires_grad=True)
    return bank, (8 * torch.randn(SHAPE)).requires_grad_(), alpha.softmax(-1), alpha


@every_level
def test_the_gradient_of_the_weights_is_summed_only_if_it_is_needed(level: str, sums: list[bool]) -> None:
    bank, x, weights, alpha = mixture(level)
    y = bank(x, weights).square().sum()
    both = torch.autograd.grad(y, (x, alpha), retain_graph=True)
    (dx,) = torch.autograd.grad(y, x, retain_graph=True)
    (dalpha,) = torch.autograd.grad(y, alpha, retain_graph=True)
    (dweights,) = torch.autograd.grad(y, weights, retain_graph=True)
    y.backward(inputs=[x], retain_graph=True)
    y.backward()
    assert sums == [True, False, True, True, False, True]
    assert torch.equal(dx, both[0])
    assert torch.equal(dalpha, both[1])
    assert torch.equal(alpha.grad, both[1])
    assert torch.equal(x.grad, 2 * dx)
    assert dweights.shape == weights.shape


@every_level
def test_a_gradient_of_only_x_can_be_differentiated_by_the_weights(level: str, sums: list[bool]) -> None:
    """The order of a look-ahead: first dx, then, through dx, the gradient of alpha."""
    bank, x, weights, alpha = mixture(level)
    a = torch.randn(SHAPE)
    (dx,) = torch.autograd.grad(bank(x, weights).square().sum(), x, create_graph=True)
    (found,) = torch.autograd.grad((a * dx).sum(), alpha)
    assert sums == [False, True, True]

    alpha = alpha.detach().double().requires_grad_()
    xs = x.detach().double().requires_grad_()
    (dx,) = torch.autograd.grad(exact(bank)(xs, alpha.softmax(-1)).square().sum(), xs, create_graph=True)
    (expected,) = torch.autograd.grad((a.double() * dx).sum(), alpha)
    assert float(expected.abs().max()) > 0.1
    assert_close({"alpha": found}, {"alpha": expected}, 1e-5)


def test_every_gradient_is_needed_outside_a_backward_pass_and_if_torch_does_not_report_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = torch.ones(2, requires_grad=True)
    assert needs_gradient(weights)
    monkeypatch.setattr("nasact.mixture.torch_transforms._WILL_EXECUTE", None)
    assert needs_gradient(weights)
    assert not needs_gradient(weights.detach())


@code
@every_level
@pytest.mark.parametrize(("low", "high"), [(0.0, 4.0), (-4.0, 0.0)])
def test_a_range_that_ends_at_zero_holds_zero(
    low: float, high: float, level: str, plainly: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if plainly:
        monkeypatch.setattr(native, "supports", lambda x: False)
    names = ("tanh", "softplus", "cos")
    for batch in (4, 400):  # few and many elements per row
        x = torch.randn(batch, 3, 11)
        x[0] = torch.tensor([0.0, -0.0, 1e-40, -1e-40, low, high, 5.0, -5.0, 2.0, -2.0, 0.03125])
        x[1:, :, :5] = 0.0
        where = layout(level, x.shape)
        bank = make_bank(names, where, Table(low=low, high=high, knots=257, tolerance=1e-5))
        weights, g, a = torch.randn(*where.shape, 3), torch.randn(x.shape), torch.randn(x.shape)
        assert_close(gradients(bank, x, weights, g), truth(bank, x, weights, g), 1e-4)
        found = double_backward(bank, x, weights, g, a)
        true = double_backward(exact(bank), x.double(), weights.double(), g.double(), a.double())
        keys = [str(order) for order in range(len(found))]
        assert_close(dict(zip(keys, found, strict=True)), dict(zip(keys, true, strict=True)), 1e-3)
