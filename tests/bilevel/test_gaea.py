"""Exponentiated gradient and its strategy: closed forms, the regret bound of the theory, zeros and small weights."""

from __future__ import annotations

import math

import pytest
import torch
from bilevel_problems import batches
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from nasact.bilevel import SearchState, build
from nasact.bilevel.strategies.exponentiated_gradient import ExponentiatedGradient, exponentiated
from nasact.bilevel.strategies.gaea import GAEA
from nasact.errors import StudyError
from nasact.mixture import NORMALISERS
from nasact.supernet import relax


def after_steps(p: Tensor, gradients: list[Tensor], lr: float) -> Tensor:
    parameter = nn.Parameter(p.clone())
    optimiser = ExponentiatedGradient([parameter], lr=lr)
    for g in gradients:
        parameter.grad = g
        optimiser.step()
    return parameter.detach()


@pytest.mark.parametrize("steps", [1, 7, 200])
def test_on_a_linear_loss_the_iterates_are_softmax_of_minus_lr_t_g(steps: int) -> None:
    g = torch.tensor([0.3, -1.0, 0.0, 2.0, 0.31], dtype=torch.float64)
    found = after_steps(torch.full((5,), 0.2, dtype=torch.float64), [g] * steps, 0.1)
    torch.testing.assert_close(found, torch.softmax(-0.1 * steps * g, -1), rtol=1e-11, atol=0)


def test_a_start_that_is_not_uniform_multiplies_the_factors() -> None:
    p = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    g = torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64)
    expected = p * torch.exp(-0.4 * 3 * g)
    torch.testing.assert_close(after_steps(p, [g] * 3, 0.4), expected / expected.sum(), rtol=1e-12, atol=0)


@given(
    start=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=7).filter(lambda p: sum(p) > 1e-3),
    seed=st.integers(0, 1000),
    size=st.sampled_from([0.0, 1e-3, 1.0, 1e6, 1e30, 3e38]),
    lr=st.sampled_from([1e-3, 0.1, 1e3]),
)
@settings(max_examples=150, deadline=None)
def test_no_step_leaves_the_simplex_or_makes_a_weight_zero(
    start: list[float], seed: int, size: float, lr: float
) -> None:
    p = torch.tensor(start)
    p = p / p.sum()
    g = size * (2 * torch.rand(len(start), generator=torch.Generator().manual_seed(seed)) - 1)
    found = exponentiated(p, g, lr)
    assert float((found.double().sum() - 1).abs()) < 1e-6
    assert torch.equal(found == 0, p == 0)
    assert (found >= 0).all()


def test_a_weight_at_its_lower_bound_can_grow_again() -> None:
    p = torch.tensor([0.5, 0.5])
    at_bound = after_steps(p, [torch.tensor([1e6, 0.0])], 1.0)
    assert 0 < float(at_bound[0]) < 1e-30
    assert float(after_steps(at_bound, [torch.tensor([-10.0, 0.0])] * 10, 1.0)[0]) > 0.999


def test_a_constant_added_to_a_row_of_the_gradient_changes_nothing() -> None:
    p, g = torch.softmax(torch.randn(4, 5, dtype=torch.float64), -1), torch.randn(4, 5, dtype=torch.float64)
    shifted = g + torch.tensor([[3.0], [-70.0], [0.0], [900.0]], dtype=torch.float64)
    torch.testing.assert_close(exponentiated(p, shifted, 0.5), exponentiated(p, g, 0.5), rtol=1e-11, atol=0)


def test_the_step_of_a_row_does_not_depend_on_other_rows() -> None:
    p, g = torch.softmax(torch.randn(2, 3, 5), -1), torch.randn(2, 3, 5)
    p[0, 1, 2], p[0, 1, 0] = 0.0, p[0, 1, 0] + p[0, 1, 2]
    rows = [exponentiated(p[i, j], g[i, j], 0.3) for i in range(2) for j in range(3)]
    assert torch.equal(exponentiated(p, g, 0.3).reshape(6, 5), torch.stack(rows))


@pytest.mark.parametrize("adversary", ["random", "largest weight"])
def test_regret_stays_below_the_bound_of_hedge(adversary: str) -> None:
    """sqrt(T ln K / 2) for every sequence of losses in [0, 1] at lr = sqrt(8 ln K / T) (Freund and Schapire)."""
    T, K = 400, 6
    lr = math.sqrt(8 * math.log(K) / T)
    torch.manual_seed(0)
    p, loss_of_p, losses = torch.full((K,), 1 / K, dtype=torch.float64), 0.0, torch.zeros(K, dtype=torch.float64)
    for _ in range(T):
        g = torch.rand(K, dtype=torch.float64) if adversary == "random" else F.one_hot(p.argmax(), K).double()
        loss_of_p, losses = loss_of_p + float(p @ g), losses + g
        p = exponentiated(p, g, lr)
    assert loss_of_p - float(losses.min()) <= math.sqrt(T * math.log(K) / 2)


def test_learning_rate_is_saved_and_a_parameter_without_gradient_does_not_change() -> None:
    moved, without_gradient = nn.Parameter(torch.full((3,), 1 / 3)), nn.Parameter(torch.tensor([0.9, 0.1]))
    optimiser = ExponentiatedGradient([moved, without_gradient], lr=0.7)
    twin = ExponentiatedGradient([moved, without_gradient])
    twin.load_state_dict(optimiser.state_dict())
    assert twin.param_groups[0]["lr"] == 0.7

    def loss() -> Tensor:
        value = moved @ torch.tensor([1.0, 2.0, 3.0])
        value.backward()
        return value

    assert twin.step(loss).item() == pytest.approx(2.0)
    torch.testing.assert_close(moved.detach(), torch.softmax(-0.7 * torch.arange(3.0), -1))
    assert torch.equal(without_gradient.detach(), torch.tensor([0.9, 0.1]))


@pytest.mark.parametrize("bad", [[0.5, 0.6], [1.5, -0.5], [0.0, 0.0]])
def test_rows_outside_the_simplex_are_refused(bad: list[float]) -> None:
    with pytest.raises(StudyError, match="parameter 0: exponentiated gradient needs rows on the simplex"):
        ExponentiatedGradient([nn.Parameter(torch.tensor(bad))])


def test_learning_rate_of_zero_is_refused() -> None:
    with pytest.raises(StudyError, match="lr must be a positive number, but got 0"):
        ExponentiatedGradient([nn.Parameter(torch.ones(1))], lr=0)


@pytest.mark.parametrize("slack", [0.0, 1.0, math.nan])
def test_slack_outside_0_to_1_is_refused(slack: float) -> None:
    with pytest.raises(StudyError, match="slack must be between 0 and 1, but got"):
        build("gaea", {"slack": slack})


def initial_gaea_state(level: str = "channel", init: str = "uniform", lr: float = 0.1) -> SearchState:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3)
    )
    supernet = relax(
        model,
        ("relu", "tanh", "silu", "identity"),
        normaliser="convex",
        level=level,
        init=init,
        example_input=torch.zeros(2, 1, 7, 7),
    )
    return GAEA(lr=lr).init(supernet, torch.optim.SGD(supernet.weight_parameters(), lr=0.1), F.cross_entropy)


@pytest.mark.parametrize("level", ["layer", "channel"])
def test_a_step_of_gaea_is_the_product_with_the_gradient_of_the_validation_loss(level: str) -> None:
    state, strategy = initial_gaea_state(level, lr=20.0), GAEA(lr=20.0)
    train, val = batches()
    before = [alpha.detach().clone() for alpha in state.supernet.arch_parameters()]
    torch.manual_seed(1)
    found = strategy.alpha_gradient(state, train, val).alpha
    torch.manual_seed(1)
    strategy.step(state, train, val)
    for p, g, after in zip(before, found, state.supernet.arch_parameters(), strict=True):
        expected = p.double() * torch.exp(-20.0 * g.double())
        torch.testing.assert_close(
            after.detach().double(), expected / expected.sum(-1, keepdim=True), rtol=1e-5, atol=1e-9
        )
        assert float((after.detach() - p).abs().max()) > 1e-2


def test_a_search_can_leave_a_start_at_the_original_function_and_stays_inside_the_simplex() -> None:
    state = initial_gaea_state(init="original", lr=300.0)
    starts = [alpha.detach().clone() for alpha in state.supernet.arch_parameters()]
    assert all(float(start.min()) == pytest.approx(2.5e-4) for start in starts)
    assert all(float(start.max(-1).values.min()) == pytest.approx(1 - 7.5e-4) for start in starts)
    for seed in range(10):
        GAEA(lr=300.0).step(state, *batches(seed=seed))
    for start, alpha in zip(starts, state.supernet.arch_parameters(), strict=True):
        torch.testing.assert_close(alpha.sum(-1), torch.ones(4), rtol=0, atol=1e-6)
        assert (alpha > 0).all()
        assert float((alpha.detach() - start).abs().max()) > 0.1


def test_the_projection_of_the_normaliser_does_not_change_a_bit_of_a_row_on_the_simplex() -> None:
    project = NORMALISERS.get("convex").project
    assert project is not None
    p = torch.softmax(30 * torch.randn(200, 9, generator=torch.Generator().manual_seed(0)), -1)
    assert 0 < float(p[p > 0].min()) < 1e-20
    assert torch.equal(project(p), p)
    outside = torch.tensor([0.5, 0.6, -0.2])
    torch.testing.assert_close(project(outside), torch.tensor([0.45, 0.55, 0.0]))
