"""Every hypergradient on every test problem against an exact answer; and the error of the paper's difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from bilevel_problems import KINKED, OPTIMISERS, SMOOTH, Case, Quadratic, cnn_case, flat, relative_error
from hypergradient_oracles import (
    PROBLEMS,
    Parts,
    Point,
    direct_part_only,
    exact_inverse,
    one_step_ahead,
    truncated_series,
)
from torch import Tensor

from nasact.bilevel import HYPERGRADIENTS
from nasact.bilevel.hypergradients.finite_difference import finite_difference
from nasact.bilevel.hypergradients.first_order import first_order
from nasact.bilevel.hypergradients.second_order import second_order
from nasact.bilevel.hypergradients.unrolled import unrolled

CNN_OPTIMISERS = ("sgd_momentum", "sgd_nesterov", "adam", "adamw")


@dataclass(frozen=True)
class Expectation:
    """A hypergradient, called with `options`, must equal `answer` up to `tolerance`.

    The error is relative to the indirect part, through the weights, which may be much smaller than the direct part.
    """

    answer: Callable[[Point], Parts]
    tolerance: float
    options: Mapping[str, Any] = field(default_factory=dict)


EXPECTATIONS = {
    "first_order": Expectation(direct_part_only, 1e-12),
    "second_order": Expectation(one_step_ahead, 1e-12),
    "finite_difference": Expectation(one_step_ahead, 1e-3),
    "unrolled": Expectation(one_step_ahead, 1e-12),
    "implicit_neumann": Expectation(
        partial(truncated_series, step=0.05, iterations=20), 1e-12, {"step": 0.05, "iterations": 20}
    ),
    # The CNN's training loss has negative curvature: without damping there is no answer.
    "implicit_conjugate_gradient": Expectation(
        partial(exact_inverse, damping=1.0), 1e-11, {"damping": 1.0, "iterations": 100, "tolerance": 1e-13}
    ),
}
MATRIX = [(name, problem) for name in HYPERGRADIENTS.names() for problem in PROBLEMS]


def test_every_hypergradient_has_an_expectation_and_is_tested_on_every_problem() -> None:
    assert set(EXPECTATIONS) == set(HYPERGRADIENTS.names())
    assert len(HYPERGRADIENTS) >= 6
    assert {"quadratic", "ridge", "cnn_sgd_momentum", "cnn_adam"} <= set(PROBLEMS)
    assert len(MATRIX) == len(HYPERGRADIENTS) * len(PROBLEMS)


@pytest.mark.parametrize(("name", "problem"), MATRIX)
def test_agrees_with_its_exact_answer(name: str, problem: str) -> None:
    point, expectation = PROBLEMS[problem](), EXPECTATIONS[name]
    direct, indirect = expectation.answer(point)
    found = HYPERGRADIENTS.get(name)(point.problem, point.w, point.alpha, point.inner, **expectation.options).alpha
    assert [part.shape for part in found] == [part.shape for part in point.alpha]
    if name == "first_order":
        assert not bool(indirect.any())
        torch.testing.assert_close(flat(found), direct, rtol=expectation.tolerance, atol=0)
    else:
        assert indirect.norm() > 1e-5, "without an indirect part nothing is tested"
        assert relative_error(found, (direct + indirect,), relative_to=(indirect,)) < expectation.tolerance


def test_the_exact_answers_of_the_hypergradients_differ_on_every_problem() -> None:
    """A hypergradient that computes the answer of another kind would fail."""
    kinds = [EXPECTATIONS[name] for name in ("first_order", "second_order", "implicit_neumann")]
    kinds.append(EXPECTATIONS["implicit_conjugate_gradient"])
    for make in PROBLEMS.values():
        answers = [sum(kind.answer(make())) for kind in kinds]
        scale = max(float(answer.norm()) for answer in answers)
        differences = [float((a - b).norm()) / scale for i, a in enumerate(answers) for b in answers[:i]]
        assert len(differences) == 6
        assert min(differences) > 1e-3


# One step ahead: the exact product


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_unrolled_agrees_with_the_closed_form_over_several_steps(steps: int) -> None:
    point = PROBLEMS["quadratic"]()
    assert isinstance(point.problem, Quadratic)
    found = unrolled(point.problem, point.w, point.alpha, point.inner, steps=steps)
    buffer = torch.cat([point.optimiser.state[weight]["momentum_buffer"] for weight in point.weights])
    sgd = {"lr": 0.05, "momentum": 0.9, "decay": 0.1, "buffer": buffer}
    expected = point.problem.exact_hypergradient(point.flat, torch.cat(point.alpha), steps=steps, **sgd)
    assert relative_error(found.alpha, (expected,)) < 1e-12


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("functions", [SMOOTH, KINKED], ids=["smooth", "kinked"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_order_2_is_exact_with_all_candidates_and_optimisers(optimiser, functions, dtype, tolerance) -> None:
    case = cnn_case(optimiser, functions=functions, dtype=dtype)
    found, expected, first = case(second_order), case(unrolled), case(first_order)
    assert relative_error(found.alpha, expected.alpha) < tolerance
    assert relative_error(found.alpha, first.alpha) > 1e-3, "without a second-order part nothing is tested"


@pytest.mark.parametrize("optimiser", CNN_OPTIMISERS)
@pytest.mark.parametrize("warm", [0, 3])
def test_order_2_is_the_slope_of_the_validation_loss_after_a_real_step(optimiser: str, warm: int) -> None:
    """Central differences of the whole step in alpha: without second derivatives or autograd through the update."""
    case = cnn_case(optimiser, warm=warm)
    problem, alpha = case.problem, case.problem.alpha

    def loss_after_step(position: Tensor) -> float:
        shifted = tuple(position.split([len(a) for a in alpha]))
        w = tuple(weight.clone().requires_grad_() for weight in problem.w)
        grads = torch.autograd.grad(problem.train_loss(w, shifted), w, allow_unused=True)
        return problem.val_loss(case.inner(problem.w, grads), shifted).item()

    start, step = torch.cat(alpha), 1e-5
    slopes = [
        (loss_after_step(start + step * unit) - loss_after_step(start - step * unit)) / (2 * step)
        for unit in torch.eye(len(start), dtype=start.dtype)
    ]
    assert relative_error(case(second_order).alpha, (torch.tensor(slopes, dtype=start.dtype),)) < 1e-7


# One step ahead: the paper's difference


def difference_error(functions, *, step: float = 0.01, seed_count: int = 4) -> list[float]:
    """Return the error of the paper's difference relative to the second-order term, for several networks."""
    errors = []
    for seed in range(seed_count):
        case = cnn_case(functions=functions, seed=seed, size=64)
        exact = case(unrolled).alpha
        second_part = [total - direct for total, direct in zip(exact, direct_part(case), strict=True)]
        errors.append(relative_error(case(finite_difference, step=step).alpha, exact, relative_to=second_part))
    return errors


def direct_part(case: Case) -> tuple[Tensor, ...]:
    """Return grad_alpha Lval(w', alpha) with constant w'."""
    problem = case.problem
    w = tuple(weight.clone().requires_grad_() for weight in problem.w)
    grads = torch.autograd.grad(problem.train_loss(w, problem.alpha), w, allow_unused=True)
    alpha = tuple(a.clone().requires_grad_() for a in problem.alpha)
    return torch.autograd.grad(problem.val_loss(case.inner(problem.w, grads), alpha), alpha)


def test_the_papers_difference_is_accurate_with_smooth_candidates() -> None:
    """Its error falls with the square of the step: there is no other error."""
    papers, tenth = max(difference_error(SMOOTH)), max(difference_error(SMOOTH, step=0.001))
    assert 1e-5 < papers < 1e-3
    assert 1e-7 < tenth < 1e-5
    assert papers / tenth == pytest.approx(100, rel=0.05)


def test_the_papers_difference_is_wrong_with_relu_among_the_candidates() -> None:
    """Why order 2 uses the exact product: a step of 0.01 crosses kinks, and even a tenth of it sometimes does."""
    papers, tenth = difference_error(KINKED), difference_error(KINKED, step=0.001)
    assert min(papers) > 0.01
    assert 0.1 < max(papers) < 10
    assert min(tenth) < 1e-5
    assert 0.1 < max(tenth) < 100
