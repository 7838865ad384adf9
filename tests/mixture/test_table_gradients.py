"""Gradients of the table that are asked for one by one, and ranges that end at zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from mixture_oracles import LEVELS, THIRTEEN, assert_close, exact, gradients, layout, make_bank, truth, twice
from torch import Tensor

from nasact.mixture import Bank
from nasact.mixture.kernels.context import asked_for
from nasact.mixture.kernels.table import Table
from nasact.mixture.table import native, op

every_level = pytest.mark.parametrize("level", LEVELS)
code = pytest.mark.parametrize("plainly", [False, True], ids=["native", "plain torch"])
SHAPE = (64, 3, 11)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def sums(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each pass back was told to sum into the weights."""
    told: list[bool] = []

    def telling(original: Callable[..., Any]) -> Callable[..., Any]:
        def told_and_done(*args: Any, weights_too: bool) -> Any:
            told.append(weights_too)
            return original(*args, weights_too=weights_too)

        return told_and_done

    for name in ("backward", "_second"):
        monkeypatch.setattr(op, name, telling(getattr(op, name)))
    return told


def mixture(level: str) -> tuple[Bank, Tensor, Tensor, Tensor]:
    """A bank, an input, its weights (not leaves), and what they come from."""
    bank = make_bank(THIRTEEN, layout(level, SHAPE), Table())
    alpha = torch.randn(*bank.layout.shape, len(THIRTEEN), requires_grad=True)
    return bank, (8 * torch.randn(SHAPE)).requires_grad_(), alpha.softmax(-1), alpha


@every_level
def test_sums_into_the_weights_are_made_only_where_they_are_asked_for(level: str, sums: list[bool]) -> None:
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
def test_a_gradient_of_x_alone_still_leads_to_the_weights(level: str, sums: list[bool]) -> None:
    """The pass that a look-ahead makes: d x first, and only then, through it, d alpha."""
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


def test_outside_a_backward_pass_and_where_torch_does_not_tell_everything_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = torch.ones(2, requires_grad=True)
    assert asked_for(weights)
    monkeypatch.setattr("nasact.mixture.kernels.context._ASKED_FOR", None)
    assert asked_for(weights)
    assert not asked_for(weights.detach())


@code
@every_level
@pytest.mark.parametrize(("low", "high"), [(0.0, 4.0), (-4.0, 0.0)])
def test_a_range_that_ends_at_zero_holds_zero(
    low: float, high: float, level: str, plainly: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if plainly:
        monkeypatch.setattr(native, "serves", lambda x: False)
    names = ("tanh", "softplus", "cos")
    for batch in (4, 400):  # few and many elements a row
        x = torch.randn(batch, 3, 11)
        x[0] = torch.tensor([0.0, -0.0, 1e-40, -1e-40, low, high, 5.0, -5.0, 2.0, -2.0, 0.03125])
        x[1:, :, :5] = 0.0
        where = layout(level, x.shape)
        bank = make_bank(names, where, Table(low=low, high=high, knots=257, tolerance=1e-5))
        weights, g, a = torch.randn(*where.shape, 3), torch.randn(x.shape), torch.randn(x.shape)
        assert_close(gradients(bank, x, weights, g), truth(bank, x, weights, g), 1e-4)
        found = twice(bank, x, weights, g, a)
        true = twice(exact(bank), x.double(), weights.double(), g.double(), a.double())
        keys = [str(order) for order in range(len(found))]
        assert_close(dict(zip(keys, found, strict=True)), dict(zip(keys, true, strict=True)), 1e-3)
