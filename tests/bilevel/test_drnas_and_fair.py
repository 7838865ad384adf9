"""Alpha-only penalties: DrNAS' pull to the flat Dirichlet distribution, FairDARTS' push of gates from one half."""

from __future__ import annotations

import math

import pytest
import torch
from bilevel_problems import batches, tiny_supernet
from torch.distributions import Dirichlet, kl_divergence
from torch.nn import functional as F

from nasact.bilevel import SearchState, Strategy, build
from nasact.bilevel.strategies.drnas import DrNAS, kl_to_flat
from nasact.bilevel.strategies.fair import Fair
from nasact.bilevel.strategies.gdas import GDAS
from nasact.errors import StudyError
from nasact.mixture.dirichlet import LOWEST, concentration
from nasact.supernet import derive, relax


def initial_state_of(strategy: Strategy, dtype: torch.dtype = torch.float64) -> SearchState:
    supernet = tiny_supernet(normaliser=strategy.normalisers[0], dtype=dtype)
    return strategy.init(supernet, torch.optim.SGD(supernet.weight_parameters(), lr=0.1), F.cross_entropy)


def concentrations() -> torch.Tensor:
    c = torch.rand(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return LOWEST * (1e5**c)


def test_the_divergence_from_the_flat_distribution_is_that_of_torch() -> None:
    c = concentrations()
    expected = kl_divergence(Dirichlet(c), Dirichlet(torch.ones_like(c)))
    torch.testing.assert_close(kl_to_flat(c), expected, rtol=1e-10, atol=1e-10)
    assert kl_to_flat(torch.ones(3, 4, dtype=torch.float64)).abs().max() < 1e-12
    assert (kl_to_flat(c) > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_of_the_pull_is_its_closed_form(dtype: torch.dtype) -> None:
    """d KL / d c_k = (c_k - 1) psi'(c_k) - (c0 - K) psi'(c0), times d c / d a = min(c, 1)."""
    c = concentrations()
    alpha = torch.where(c < 1, c.log(), c - 1).to(dtype).requires_grad_()
    (found,) = torch.autograd.grad(DrNAS(pull=0.5).alpha_penalty((alpha,)), alpha)
    c = concentration(alpha.detach().double())
    total = c.sum(-1, keepdim=True)
    slope = (c - 1) * torch.polygamma(1, c) - (total - 6) * torch.polygamma(1, total)
    expected = 0.5 / 50 * slope * c.clamp_max(1)
    torch.testing.assert_close(found.double(), expected, rtol=1e-9 if dtype == torch.float64 else 1e-5, atol=1e-7)


def test_the_pull_is_a_sum_over_sites_of_means_over_rows() -> None:
    row = torch.tensor([1.0, -1.0, 0.5])
    one = DrNAS().alpha_penalty((row,))
    torch.testing.assert_close(DrNAS().alpha_penalty((row, row)), 2 * one)
    torch.testing.assert_close(DrNAS().alpha_penalty((row.expand(7, 3),)), one)


@pytest.mark.parametrize(("with_penalty", "without"), [(DrNAS(pull=0.3), DrNAS(pull=0)), (Fair(), Fair(scale=0))])
def test_alpha_gets_the_gradient_of_the_penalty_and_the_reported_loss_does_not_include_it(
    with_penalty: DrNAS | Fair, without: DrNAS | Fair
) -> None:
    found = []
    for strategy in (with_penalty, without):
        state = initial_state_of(strategy)
        with torch.no_grad():
            for alpha in state.supernet.arch_parameters():
                alpha += torch.tensor([0.8, -0.5, 0.2])
        torch.manual_seed(4)
        found.append(strategy.alpha_gradient(state, *batches(torch.float64)))
    alphas = [alpha.detach().requires_grad_() for alpha in state.supernet.arch_parameters()]
    penalty_gradients = torch.autograd.grad(with_penalty.alpha_penalty(tuple(alphas)), alphas)
    for both, loss_only, penalty_only in zip(found[0].alpha, found[1].alpha, penalty_gradients, strict=True):
        torch.testing.assert_close(both - loss_only, penalty_only, rtol=1e-9, atol=1e-12)
        assert float(penalty_only.norm()) > 1e-3
    assert found[0].val_loss == found[1].val_loss


@pytest.mark.parametrize("strategy", [DrNAS(), Fair()])
def test_an_alpha_that_the_loss_does_not_reach_is_not_moved_by_the_penalty(strategy: DrNAS | Fair) -> None:
    state = initial_state_of(strategy)
    state.supernet.act2.uses_alpha = False
    reached, unreached = strategy.alpha_gradient(state, *batches(torch.float64)).alpha
    assert (reached != 0).all()
    assert (unreached == 0).all()


def test_a_strong_pull_returns_concentrations_to_one() -> None:
    strategy = DrNAS(lr=0.1, pull=10.0)
    state = initial_state_of(strategy)
    with torch.no_grad():
        for alpha in state.supernet.arch_parameters():
            alpha.copy_(torch.tensor([3.0, -2.0, 0.0]))
    for seed in range(60):
        strategy.step(state, *batches(torch.float64, seed=seed))
    for alpha in state.supernet.arch_parameters():
        assert float((concentration(alpha.detach()) - 1).abs().max()) < 0.1


@pytest.mark.parametrize("alpha", [-1e30, -20.0, 1e30])
def test_alphas_far_outside_the_bounds_are_projected_and_the_search_continues(alpha: float) -> None:
    strategy = DrNAS()
    state = initial_state_of(strategy, torch.float32)
    with torch.no_grad():
        state.supernet.act1.alpha[1] = alpha
    for seed in range(3):
        strategy.step(state, *batches(seed=seed))
    c = concentration(state.supernet.act1.alpha.detach())
    assert torch.isfinite(c).all()
    assert (c >= LOWEST * 0.999).all()


def test_the_penalty_of_gates_is_its_closed_form_at_every_temperature() -> None:
    alphas = tuple(torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    strategy = Fair(scale=4.0)
    value = strategy.alpha_penalty(alphas)
    gates = torch.sigmoid(torch.stack(alphas))
    assert value.item() == pytest.approx(-4.0 * (gates - 0.5).square().mean().item(), rel=1e-12)
    found = torch.stack(torch.autograd.grad(value, alphas))
    expected = -4.0 * 2 * (gates - 0.5) * gates * (1 - gates) / 12
    torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=0)

    gradients = []
    for temperature in (1.0, 0.2):
        ends = []
        for scale in (10.0, 0.0):
            state = initial_state_of(Fair(scale=scale))
            for mixture in state.supernet.mixtures().values():
                mixture.temperature.fill_(temperature)
            torch.manual_seed(0)
            ends.append(torch.cat(Fair(scale=scale).alpha_gradient(state, *batches(torch.float64)).alpha))
        gradients.append(ends[0] - ends[1])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-12)


def test_gates_at_one_half_get_no_penalty_gradient_and_others_are_pushed_apart() -> None:
    alpha = torch.tensor([0.0, 0.4, -0.4], requires_grad=True)
    (g,) = torch.autograd.grad(Fair().alpha_penalty((alpha,)), alpha)
    assert g[0] == 0
    assert g[1] < 0 < g[2], "descent makes the open gate wider and the closed one narrower"


def test_gates_are_derived_without_normalising_their_sum() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
    supernet = relax(model, ("relu", "tanh", "silu"), normaliser="sigmoid")
    with torch.no_grad():
        supernet.arch_parameters()[0].copy_(torch.tensor([-1.0, 2.0, 1.5]))
    (site,) = derive(supernet, 2).sites.values()
    kept = torch.as_tensor(site.weights)
    torch.testing.assert_close(kept.double().sum(), torch.sigmoid(torch.tensor([2.0, 1.5])).double().sum())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("drnas", {"pull": -1.0}, "pull must be a number of at least 0, but got -1.0"),
        ("drnas", {"pull": math.inf}, "pull must be a number of at least 0, but got inf"),
        ("fair", {"scale": math.nan}, "scale must be a number of at least 0, but got nan"),
        ("fair", {"lr": 0.0}, "lr must be a positive number, but got 0.0"),
        ("gdas", {"tau": 10}, "unknown option 'tau' of strategy 'gdas'"),
    ],
)
def test_invalid_options_are_refused_in_one_line(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(StudyError) as caught:
        build(name, options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_gdas_finds_the_only_function_that_fits() -> None:
    """The target is sin(3 x), the network has one unit: with the other functions no weights fit the target."""
    torch.manual_seed(0)
    x = 2 * torch.randn(512, 1)
    model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.ReLU(), torch.nn.Linear(1, 1))
    with torch.no_grad():
        model[0].weight.fill_(3.0)
        model[0].bias.fill_(0.0)
    supernet = relax(model, ("relu", "sin", "tanh"), normaliser="gumbel_hard")
    strategy = GDAS(lr=0.05)
    state = strategy.init(supernet, torch.optim.Adam(supernet.weight_parameters(), lr=1e-2), F.mse_loss)
    for step in range(150):
        supernet.set_temperature(10 + (0.1 - 10) * step / 149)
        rows = torch.randint(512, (2, 64))
        train, val = (type(batches()[0])(x[row], torch.sin(3 * x[row])) for row in rows)
        strategy.step(state, train, val)
    (p,) = supernet.weights().values()
    assert float(p[1]) > 0.9
