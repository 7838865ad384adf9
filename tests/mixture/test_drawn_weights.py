"""Mixture weights that are drawn at random: one function at a time (gumbel_hard), or from a Dirichlet distribution."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nasact import activations
from nasact.mixture import NORMALISERS, Bank, Layout, Mixture
from nasact.mixture.dirichlet import HIGHEST, LOWEST, concentration, project_alpha

ONE = torch.tensor(1.0, dtype=torch.float64)
NAMES = ("relu", "tanh", "silu", "identity")


def drawn(name: str, alpha: Tensor, temperature: float = 1.0) -> Tensor:
    return NORMALISERS.get(name).weights(alpha, temperature * ONE.to(alpha.dtype), True)


# ---- gumbel_hard ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [10.0, 1.0, 0.1])
def test_a_hard_draw_is_exactly_one_hot_and_follows_softmax_at_any_temperature(temperature: float) -> None:
    torch.manual_seed(0)
    alpha, n = torch.tensor([0.0, 1.0, -1.0, 0.5]), 40_000
    p = drawn("gumbel_hard", alpha.expand(n, 4), temperature)
    assert torch.equal(p.sort(-1).values, torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(n, 4))
    expected = torch.softmax(alpha.double(), -1)
    deviations = (p.double().mean(0) - expected) / (expected * (1 - expected) / n).sqrt()
    assert float(deviations.abs().max()) < 4


def test_a_hard_draw_has_the_gradient_of_the_soft_draw_with_the_same_noise() -> None:
    alpha = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    v = torch.randn(6, 4, dtype=torch.float64)
    torch.manual_seed(5)
    (found,) = torch.autograd.grad(drawn("gumbel_hard", alpha, 0.7), alpha, v)
    torch.manual_seed(5)
    noise = -torch.empty(6, 4, dtype=torch.float64).exponential_().log()
    (expected,) = torch.autograd.grad(torch.softmax((alpha.log_softmax(-1) + noise) / 0.7, -1), alpha, v)
    assert float(expected.abs().min()) > 0
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["gumbel", "gumbel_hard"])
@pytest.mark.parametrize("exponential", [0.0, float("inf")])
def test_noise_that_is_not_finite_does_not_reach_weights_or_gradients(
    name: str, exponential: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tensor, "exponential_", lambda tensor: tensor.fill_(exponential))
    alpha = torch.tensor([0.3, -0.2, 0.1], requires_grad=True)
    p = drawn(name, alpha, 0.1)
    (g,) = torch.autograd.grad((p * torch.arange(3.0)).sum(), alpha)
    assert torch.isfinite(p).all()
    assert torch.isfinite(g).all()


def test_each_channel_computes_one_function_in_training_and_the_mixture_in_evaluation() -> None:
    torch.manual_seed(1)
    layout = Layout(level="channel", shape=(6,))
    op = Mixture(Bank(NAMES, layout, kernel="reference"), normaliser="gumbel_hard").train()
    x = torch.randn(5, 6, 3)
    candidates = torch.stack([activations.get(name)(x, dim=1) for name in NAMES])
    drawn_functions = set()
    for _ in range(10):
        y = op(x)
        for channel in range(6):
            equal = [k for k in range(4) if torch.equal(y[:, channel], candidates[k, :, channel])]
            assert len(equal) == 1
            drawn_functions.add(equal[0])
    assert drawn_functions == {0, 1, 2, 3}
    torch.testing.assert_close(op.eval()(x), candidates.mean(0))


# ---- dirichlet ------------------------------------------------------------------------------------------------------


def test_concentrations_are_elu_plus_one_to_full_precision_in_float32() -> None:
    alpha = torch.linspace(-4.6, 50, 401, dtype=torch.float64)
    torch.testing.assert_close(concentration(alpha), F.elu(alpha) + 1, rtol=1e-12, atol=0)
    torch.testing.assert_close(concentration(alpha.float()).double(), F.elu(alpha) + 1, rtol=1e-5, atol=0)


def test_evaluation_gives_the_mean_of_the_draws() -> None:
    torch.manual_seed(0)
    alpha, n = torch.tensor([0.0, 2.0, -1.0], dtype=torch.float64), 40_000
    mean = NORMALISERS.get("dirichlet").weights(alpha, ONE, False)
    c = F.elu(alpha) + 1
    torch.testing.assert_close(mean, c / c.sum(), rtol=1e-12, atol=0)
    p = drawn("dirichlet", alpha.expand(n, 3))
    assert float(((p.mean(0) - mean) / (p.std(0) / n**0.5)).abs().max()) < 4


def test_the_pathwise_gradient_is_that_of_the_expectation() -> None:
    """For a loss that is linear in p and for its square: the first and second moments of p are known."""
    torch.manual_seed(0)
    n, v = 60_000, torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    alpha = torch.tensor([0.3, 1.5, -0.7], dtype=torch.float64)
    rows = alpha.expand(n, 3).clone().requires_grad_()
    along = drawn("dirichlet", rows) @ v
    exact = alpha.clone().requires_grad_()
    c = F.elu(exact) + 1
    m = c / c.sum()
    spread = (v.square() @ m - (v @ m) ** 2) / (c.sum() + 1)
    for loss, expectation in ((along, v @ m), (along.square(), (v @ m) ** 2 + spread)):
        (g,) = torch.autograd.grad(loss.sum(), rows, retain_graph=True)
        (expected,) = torch.autograd.grad(expectation, exact, retain_graph=True)
        assert float(((g.mean(0) - expected) / (g.std(0) / n**0.5)).abs().max()) < 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_most_extreme_concentrations_have_finite_draws_and_gradients(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    low, high, far = torch.log(torch.tensor(LOWEST)).item(), HIGHEST - 1, torch.finfo(dtype).max
    corners = [[low] * 4, [high] * 4, [low, low, low, high], [high, high, high, low], [-far, 0.0, 0.0, far]]
    alpha = torch.tensor(corners, dtype=dtype).repeat(5_000, 1).requires_grad_()
    c = concentration(alpha)
    assert float(c.detach().min()) == pytest.approx(LOWEST)
    assert float(c.detach().max()) == pytest.approx(HIGHEST)
    p = drawn("dirichlet", alpha)
    (g,) = torch.autograd.grad(p, alpha, torch.randn_like(p))
    assert torch.isfinite(p).all()
    assert torch.isfinite(g).all()
    torch.testing.assert_close(p.sum(-1), torch.ones_like(p.sum(-1)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_alpha_that_is_projected_to_its_bound_has_a_gradient(dtype: torch.dtype) -> None:
    alpha = project_alpha(torch.tensor([-50.0, 0.0, 1e6], dtype=dtype)).requires_grad_()
    (g,) = torch.autograd.grad(concentration(alpha).sum(), alpha)
    torch.testing.assert_close(g, torch.tensor([LOWEST, 1.0, 1.0], dtype=dtype))
