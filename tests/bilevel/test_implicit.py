"""The implicit hypergradient: at a minimum it is the slope after retraining; both inverses converge as proved."""

from __future__ import annotations

import logging
from functools import partial

import pytest
import torch
from bilevel_problems import OPTIMISERS, Quadratic, batches, flat, relative_error, tiny_supernet
from hypergradient_oracles import PROBLEMS, Point, Ridge, direct_part_only, exact_inverse
from torch import Tensor, nn
from torch.nn import functional as F

from nasact.bilevel import SupernetProblem
from nasact.bilevel.differentiable_optimiser import InnerStep, inner_step
from nasact.bilevel.hypergradients.implicit import implicit_conjugate_gradient, implicit_neumann
from nasact.bilevel.snapshot import same_bits
from nasact.bilevel.strategies.implicit import Implicit
from nasact.errors import StudyError


def test_implicit_is_the_slope_of_the_validation_loss_of_fully_trained_weights() -> None:
    """Central differences: Newton's method trains a logistic regression at two ridge coefficients."""
    problem = Ridge.draw()
    alpha, step = torch.tensor([-1.5], dtype=torch.float64), 1e-4

    def trained(alpha: Tensor) -> Tensor:
        free = torch.tensor([1.0] * 5 + [0.0], dtype=torch.float64)
        penalty, w = alpha.exp() * free, torch.zeros(6, dtype=torch.float64)
        for _ in range(20):
            slope, hessian = problem.gradient_and_hessian(problem.train, w)
            w = w - torch.linalg.solve(hessian + torch.diag(penalty), slope + penalty * w)
        return w

    def loss(alpha: Tensor) -> float:
        return problem.val_loss(trained(alpha).split([5, 1]), (alpha,)).item()

    expected = (loss(alpha + step) - loss(alpha - step)) / (2 * step)
    w = trained(alpha).split([5, 1])
    weights = [nn.Parameter(part.clone()) for part in w]
    inner = inner_step(torch.optim.SGD(weights, lr=0.1), weights)
    assert abs(expected) > 1e-3
    for found in (
        implicit_conjugate_gradient(problem, w, (alpha,), inner),
        implicit_neumann(problem, w, (alpha,), inner, step=2.0, iterations=100),
    ):
        assert float(found.alpha[0]) == pytest.approx(expected, rel=1e-6)
        assert found.solve.trusted


def test_conjugate_gradient_is_exact_after_one_step_per_weight_and_not_before() -> None:
    point = PROBLEMS["quadratic"]()
    expected, errors = sum(exact_inverse(point, damping=0.0)), []
    for iterations in range(1, 6):
        found = implicit_conjugate_gradient(
            point.problem, point.w, point.alpha, point.inner, iterations=iterations, tolerance=1e-14
        )
        assert found.solve.iterations == iterations
        errors.append(relative_error(found.alpha, (expected,)))
    assert len(point.flat) == 5
    assert errors[-1] < 1e-12
    assert min(errors[:-1]) > 1e-6


def test_conjugate_gradient_stops_at_its_tolerance() -> None:
    point = PROBLEMS["quadratic"]()
    solve = partial(implicit_conjugate_gradient, point.problem, point.w, point.alpha, point.inner, iterations=50)
    loose, tight = solve(tolerance=0.5).solve, solve(tolerance=1e-10).solve
    assert loose.iterations < tight.iterations <= 6
    assert loose.residual <= 0.5
    assert tight.residual <= 1e-10


def test_the_neumann_series_approaches_the_inverse_at_the_rate_of_its_slowest_eigenvalue() -> None:
    point, step = PROBLEMS["quadratic"](), 0.1
    direct, indirect = exact_inverse(point, damping=0.0)
    rate = float((1 - step * torch.linalg.eigvalsh(point.hessian)).abs().max())
    errors = {}
    for iterations in (20, 40, 150, 151, 400):
        found = implicit_neumann(point.problem, point.w, point.alpha, point.inner, step=step, iterations=iterations)
        errors[iterations] = relative_error(found.alpha, (direct + indirect,), relative_to=(indirect,))
        assert errors[iterations] < max(10 * rate ** (iterations + 1), 1e-12)
    assert errors[20] > errors[40] > errors[150] > 1e-9
    assert errors[151] / errors[150] == pytest.approx(rate, rel=0.01)
    assert errors[400] < 1e-12


@pytest.mark.parametrize("damping", [0.1, 3.0])
def test_damping_is_added_to_the_hessian_by_both_inverses(damping: float) -> None:
    point = PROBLEMS["quadratic"]()
    here = (point.problem, point.w, point.alpha, point.inner)
    expected = sum(exact_inverse(point, damping=damping))
    series = implicit_neumann(*here, damping=damping, step=0.1, iterations=400)
    gradient = implicit_conjugate_gradient(*here, damping=damping, tolerance=1e-14)
    assert relative_error(series.alpha, (expected,)) < 1e-12
    assert relative_error(gradient.alpha, (expected,)) < 1e-12
    assert relative_error((sum(exact_inverse(point, damping=0.0)),), (expected,)) > 0.01


def saddle() -> Point:
    """Return the quadratic problem with a negative definite Hessian."""
    point = PROBLEMS["quadratic"]()
    q = point.problem
    return Point(Quadratic(-q.A, q.B, q.C, q.d), *(point.w, point.alpha, point.optimiser, point.weights), -point.slope,
                 -point.hessian, point.mixed, point.validation)  # fmt: skip


def test_conjugate_gradient_reports_negative_curvature_and_returns_the_direct_part() -> None:
    point = saddle()
    found = implicit_conjugate_gradient(point.problem, point.w, point.alpha, point.inner)
    assert found.solve.negative_curvature
    assert found.solve.iterations == 0
    assert not found.solve.trusted
    torch.testing.assert_close(flat(found.alpha), direct_part_only(point)[0], rtol=1e-12, atol=0)


def test_conjugate_gradient_finds_the_negative_curvature_of_a_network_and_damping_removes_it() -> None:
    point = PROBLEMS["cnn_sgd_momentum"]()
    lowest = float(torch.linalg.eigvalsh(point.hessian)[0])
    assert lowest < -0.1
    solve = partial(implicit_conjugate_gradient, point.problem, point.w, point.alpha, point.inner, iterations=100)
    assert solve().solve.negative_curvature
    assert not solve(damping=1.01 * -lowest).solve.negative_curvature


def test_a_series_that_grows_is_not_trusted() -> None:
    point = PROBLEMS["quadratic"]()
    below, above = (
        implicit_neumann(point.problem, point.w, point.alpha, point.inner, step=step, iterations=50).solve
        for step in (1.9 / 4.0501, 2.1 / 4.0501)  # the largest eigenvalue is 4.0501
    )
    assert float(torch.linalg.eigvalsh(point.hessian)[-1]) == pytest.approx(4.0501, abs=1e-3)
    assert below.trusted
    assert not above.trusted
    assert above.residual > 1 > below.residual


BAD = [
    (implicit_neumann, {"iterations": 0}, "iterations must be a whole number of at least 1, but got 0"),
    (implicit_neumann, {"step": 0.0}, "step must be a positive number, but got 0.0"),
    (implicit_neumann, {"damping": -1.0}, "damping must be a number of at least 0, but got -1.0"),
    (implicit_conjugate_gradient, {"iterations": 2.5}, "iterations must be a whole number of at least 1, but got 2.5"),
    (
        implicit_conjugate_gradient,
        {"iterations": True},
        "iterations must be a whole number of at least 1, but got True",
    ),
    (implicit_conjugate_gradient, {"tolerance": 0.0}, "tolerance must be a positive number, but got 0.0"),
    (
        implicit_conjugate_gradient,
        {"tolerance": 1.0},
        "tolerance must be below 1 (at 1 no iteration would run)",
    ),
    (implicit_conjugate_gradient, {"damping": float("nan")}, "damping must be a number of at least 0, but got nan"),
]


@pytest.mark.parametrize(("function", "options", "message"), BAD, ids=[f"{f.__name__}-{o}" for f, o, _ in BAD])
def test_options_out_of_range_are_refused(function, options: dict, message: str) -> None:
    point = PROBLEMS["quadratic"]()
    with pytest.raises(StudyError) as caught:
        function(point.problem, point.w, point.alpha, point.inner, **options)
    assert message in str(caught.value)


def test_all_hessian_vector_products_use_one_graph() -> None:
    point, calls = PROBLEMS["quadratic"](), []

    class Spy:
        def train_loss(self, w, alpha):
            calls.append("train")
            return point.problem.train_loss(w, alpha)

        def val_loss(self, w, alpha):
            calls.append("val")
            return point.problem.val_loss(w, alpha)

    implicit_neumann(Spy(), point.w, point.alpha, point.inner, iterations=7)
    implicit_conjugate_gradient(Spy(), point.w, point.alpha, point.inner, iterations=3)
    assert calls == ["train", "val"] * 2


def warnings_of_search(caplog, strategy: Implicit, steps: int = 3) -> list[str]:
    """Return the warnings that a search of `steps` steps logs."""
    supernet = tiny_supernet()
    state = strategy.init(supernet, OPTIMISERS["sgd_momentum"](supernet.weight_parameters()), F.cross_entropy)
    with caplog.at_level(logging.WARNING):
        for _ in range(steps):
            strategy.step(state, *batches())
    return [record.getMessage() for record in caplog.records]


def test_a_search_logs_one_warning_of_negative_curvature(caplog) -> None:
    (line,) = warnings_of_search(caplog, Implicit(method="conjugate_gradient", iterations=50))
    assert "strategy 'implicit', step 1: the inverse cannot be trusted: it stops at negative curvature" in line
    assert "damping" in line


def test_a_search_logs_one_warning_of_a_growing_series(caplog) -> None:
    (line,) = warnings_of_search(caplog, Implicit(neumann_step=10.0))
    assert "the series grows" in line
    assert "use a smaller neumann_step" in line


@pytest.mark.parametrize("strategy", [Implicit(), Implicit(method="conjugate_gradient", damping=3.0)])
def test_a_search_with_a_trusted_inverse_logs_nothing(caplog, strategy: Implicit) -> None:
    assert warnings_of_search(caplog, strategy) == []


@pytest.mark.parametrize("method", ["neumann", "conjugate_gradient"])
def test_the_strategy_passes_its_options_to_the_hypergradient(method: str) -> None:
    supernet = tiny_supernet(dtype=torch.float64)
    strategy = Implicit(method=method, iterations=4, neumann_step=0.03, tolerance=1e-3, damping=0.7)
    state = strategy.init(supernet, OPTIMISERS["adam"](supernet.weight_parameters()), F.cross_entropy)
    torch.manual_seed(5)
    found = strategy.alpha_gradient(state, *batches(torch.float64))
    torch.manual_seed(5)
    problem = SupernetProblem.draw(supernet, F.cross_entropy, *batches(torch.float64))
    expected = (
        implicit_neumann(problem, problem.w, problem.alpha, InnerStep(()), iterations=4, step=0.03, damping=0.7)
        if method == "neumann"
        else implicit_conjugate_gradient(
            problem, problem.w, problem.alpha, InnerStep(()), iterations=4, tolerance=1e-3, damping=0.7
        )
    )
    assert all(same_bits(one, other) for one, other in zip(found.alpha, expected.alpha, strict=True))
    assert found.solve == expected.solve
