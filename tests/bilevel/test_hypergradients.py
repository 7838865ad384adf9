"""Every hypergradient against answers known by other means: by hand, by autograd, by differencing the whole step."""

from __future__ import annotations

import pytest
import torch
from bilevel_problems import KINKED, OPTIMISERS, SMOOTH, Quadratic, cnn_case, error, flat, numbers
from torch import nn

from nasact.bilevel import HYPERGRADIENTS, Batch, SupernetProblem, inner_step
from nasact.bilevel.hypergradients import finite_difference, first_order, second_order, unrolled
from nasact.bilevel.snapshot import same_bits

NAMES = HYPERGRADIENTS.names()
CNN_OPTIMISERS = ("sgd_momentum", "sgd_nesterov", "adam", "adamw")
# Of the whole hypergradient, on problems without kinks; `first_order` has a truth of its own.
TOLERANCE = {"first_order": 1e-14, "second_order": 1e-12, "finite_difference": 1e-4, "unrolled": 1e-12}


def test_all_hypergradients_are_found_and_have_a_tolerance() -> None:
    assert len(NAMES) == 4
    assert set(NAMES) == set(TOLERANCE)


def quadratic_setting(momentum: float = 0.9, decay: float = 0.1):
    problem = Quadratic.draw()
    torch.manual_seed(3)
    weights = [nn.Parameter(torch.randn(2, dtype=torch.float64)), nn.Parameter(torch.randn(3, dtype=torch.float64))]
    optimiser = torch.optim.SGD(weights, lr=0.05, momentum=momentum, weight_decay=decay)
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    optimiser.step()
    alpha = (torch.randn(1, dtype=torch.float64), torch.randn(2, dtype=torch.float64))
    buffer = torch.cat([optimiser.state[weight]["momentum_buffer"] for weight in weights])
    w = tuple(weight.detach() for weight in weights)
    known = {"lr": 0.05, "momentum": momentum, "decay": decay, "buffer": buffer}
    return problem, w, alpha, inner_step(optimiser, weights), known


@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_the_closed_form_of_a_quadratic_problem(name: str) -> None:
    problem, w, alpha, inner, known = quadratic_setting()
    found = HYPERGRADIENTS.get(name)(problem, w, alpha, inner)
    steps = 0 if name == "first_order" else 1
    expected = problem.answer(torch.cat(w), torch.cat(alpha), steps=steps, **known)
    # The training loss is bilinear in w and alpha: even the finite difference is exact but for rounding.
    assert error(found.alpha, (expected,)) < 1e-9
    assert [part.shape for part in found.alpha] == [part.shape for part in alpha]


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_unrolled_agrees_with_the_closed_form_over_several_steps(steps: int) -> None:
    problem, w, alpha, inner, known = quadratic_setting()
    found = unrolled(problem, w, alpha, inner, steps=steps)
    expected = problem.answer(torch.cat(w), torch.cat(alpha), steps=steps, **known)
    assert error(found.alpha, (expected,)) < 1e-12


@pytest.mark.parametrize("optimiser", CNN_OPTIMISERS)
@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_the_oracle_on_a_cnn_with_dropout_and_batchnorm(name: str, optimiser: str) -> None:
    case = cnn_case(optimiser)
    found = case(HYPERGRADIENTS.get(name))
    if name == "first_order":
        alpha = tuple(a.clone().requires_grad_() for a in case.problem.alpha)
        expected = torch.autograd.grad(case.problem.val_loss(case.problem.w, alpha), alpha)
    else:
        expected = case(unrolled).alpha
    assert error(found.alpha, expected) < TOLERANCE[name]


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("functions", [SMOOTH, KINKED], ids=["smooth", "kinked"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_order_2_is_exact_whatever_the_candidates_and_the_optimiser(optimiser, functions, dtype, tolerance) -> None:
    case = cnn_case(optimiser, functions=functions, dtype=dtype)
    found, expected, first = case(second_order), case(unrolled), case(first_order)
    assert error(found.alpha, expected.alpha) < tolerance
    assert error(found.alpha, first.alpha) > 1e-3, "the second-order part must be there to be tested"


@pytest.mark.parametrize("optimiser", CNN_OPTIMISERS)
@pytest.mark.parametrize("warm", [0, 3])
def test_order_2_is_the_slope_of_the_validation_loss_after_a_real_step(optimiser: str, warm: int) -> None:
    """Central differences over alpha of the whole step: no second derivative, no autograd through the update."""
    case = cnn_case(optimiser, warm=warm)
    problem, alpha = case.problem, case.problem.alpha

    def loss_after_step(position: torch.Tensor) -> float:
        moved = tuple(position.split([len(a) for a in alpha]))
        w = tuple(weight.clone().requires_grad_() for weight in problem.w)
        grads = torch.autograd.grad(problem.train_loss(w, moved), w, allow_unused=True)
        return problem.val_loss(case.inner(problem.w, grads), moved).item()

    start, step = torch.cat(alpha), 1e-5
    slopes = [
        (loss_after_step(start + step * unit) - loss_after_step(start - step * unit)) / (2 * step)
        for unit in torch.eye(len(start), dtype=start.dtype)
    ]
    assert error(case(second_order).alpha, (torch.tensor(slopes, dtype=start.dtype),)) < 1e-7


def difference_error(functions, *, step: float = 0.01, seed_count: int = 4) -> list[float]:
    """Error of the paper's difference relative to the second-order term, for several networks."""
    errors = []
    for seed in range(seed_count):
        case = cnn_case(functions=functions, seed=seed, size=64)
        exact, first_part = case(unrolled).alpha, direct_part(case)
        second_part = [total - direct for total, direct in zip(exact, first_part, strict=True)]
        errors.append(error(case(finite_difference, step=step).alpha, exact, relative_to=second_part))
    return errors


def direct_part(case) -> tuple[torch.Tensor, ...]:
    """grad_alpha Lval(w', alpha) with w' held."""
    problem = case.problem
    w = tuple(weight.clone().requires_grad_() for weight in problem.w)
    grads = torch.autograd.grad(problem.train_loss(w, problem.alpha), w, allow_unused=True)
    alpha = tuple(a.clone().requires_grad_() for a in problem.alpha)
    return torch.autograd.grad(problem.val_loss(case.inner(problem.w, grads), alpha), alpha)


def test_the_papers_difference_is_accurate_with_smooth_candidates() -> None:
    assert max(difference_error(SMOOTH)) < 1e-3
    assert max(difference_error(SMOOTH, step=0.001)) < 1e-5


def test_the_papers_difference_is_wrong_with_relu_among_the_candidates() -> None:
    """Why order 2 takes the exact product: a step of 0.01 crosses kinks."""
    assert max(difference_error(KINKED)) > 0.05


@pytest.mark.parametrize("optimiser", ["sgd_momentum", "adam"])
@pytest.mark.parametrize("name", NAMES)
def test_leaves_no_trace(name: str, optimiser: str) -> None:
    case = cnn_case(optimiser)
    before, random = numbers(case.supernet), torch.get_rng_state()
    memory = {(id(p), key): value.clone() for p, state in case.optimiser.state.items() for key, value in state.items()}
    case(HYPERGRADIENTS.get(name))
    assert len(before) == 15 + 6
    assert all(same_bits(tensor, before[key]) for key, tensor in numbers(case.supernet).items())
    assert all(p.grad is None and p.requires_grad for p in case.supernet.parameters())
    assert all(
        same_bits(value, memory[id(p), key])
        for p, state in case.optimiser.state.items()
        for key, value in state.items()
    )
    assert torch.equal(torch.get_rng_state(), random), "the seeds are drawn when the problem is, not later"


@pytest.mark.parametrize("name", NAMES)
def test_is_deterministic_to_the_bit(name: str) -> None:
    case = cnn_case()
    one, other = case(HYPERGRADIENTS.get(name)), case(HYPERGRADIENTS.get(name))
    assert all(same_bits(a, b) for a, b in zip(one.alpha, other.alpha, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_those_met_on_the_way_and_detached(name: str) -> None:
    case = cnn_case()
    found = case(HYPERGRADIENTS.get(name))
    assert not any(t.requires_grad for t in (*found.alpha, found.val_loss))
    if name == "first_order":
        assert found.train_loss is None
        assert same_bits(found.val_loss, case.problem.val_loss(case.problem.w, case.problem.alpha))
    else:
        assert found.train_loss is not None
        assert same_bits(found.train_loss, case.problem.train_loss(case.problem.w, case.problem.alpha))


class Separate:
    """alpha[0] reaches the training loss only, alpha[1] the validation loss only, alpha[2] none, w[1] none."""

    def train_loss(self, w, alpha):
        return (w[0] * w[0] * alpha[0]).sum()

    def val_loss(self, w, alpha):
        return (w[0] - 1).square().sum() + alpha[1].sum() * 3


@pytest.mark.parametrize("name", NAMES)
def test_alpha_that_reaches_a_loss_not_or_only_one_gets_its_part_and_zeros_else(name: str) -> None:
    weights = [nn.Parameter(torch.tensor([2.0, 0.5], dtype=torch.float64)), nn.Parameter(torch.ones(1).double())]
    w, alpha = tuple(p.detach() for p in weights), tuple(torch.ones(1, dtype=torch.float64) for _ in range(3))
    inner = inner_step(torch.optim.SGD(weights, lr=0.1, weight_decay=0.5), weights)
    found = HYPERGRADIENTS.get(name)(Separate(), w, alpha, inner).alpha
    moved = w[0] - 0.1 * (2 * w[0] + 0.5 * w[0])
    expected = 0.0 if name == "first_order" else float((2 * (moved - 1) * -0.1 * 2 * w[0]).sum())
    torch.testing.assert_close(float(found[0]), expected, rtol=1e-6, atol=1e-9)
    assert [float(found[1]), float(found[2])] == [3.0, 0.0]


class Constant:
    """Losses that depend on nothing."""

    def train_loss(self, w, alpha):
        return torch.tensor(1.0)

    def val_loss(self, w, alpha):
        return torch.tensor(2.0)


@pytest.mark.parametrize("name", NAMES)
def test_losses_that_depend_on_nothing_give_zeros(name: str) -> None:
    weights = [nn.Parameter(torch.ones(2))]
    inner = inner_step(torch.optim.Adam(weights), weights)
    found = HYPERGRADIENTS.get(name)(Constant(), (weights[0].detach(),), (torch.ones(3),), inner)
    assert torch.equal(found.alpha[0], torch.zeros(3))


@pytest.mark.parametrize("name", NAMES)
def test_frozen_weights_are_constants(name: str) -> None:
    case = cnn_case()
    count = len(case.problem.w)
    case.supernet.conv1.requires_grad_(False)
    problem = SupernetProblem(
        case.supernet, case.problem.loss, case.problem.train, case.problem.val, train_seed=1, val_seed=2
    )
    weights = [p for p in case.supernet.weight_parameters() if p.requires_grad]
    found = HYPERGRADIENTS.get(name)(problem, problem.w, problem.alpha, inner_step(case.optimiser, weights))
    assert len(problem.w) == count - 1
    assert flat(found.alpha).norm() > 0


def test_second_order_needs_no_copy_of_the_weights() -> None:
    """w goes into the training loss as views of the parameters' own memory."""
    seen: list[int] = []

    class Spy(SupernetProblem):
        def train_loss(self, w, alpha):
            seen.extend(tensor.data_ptr() for tensor in w)
            return super().train_loss(w, alpha)

    case = cnn_case()
    p = case.problem
    spy = Spy(p.supernet, p.loss, p.train, Batch(p.val.x, p.val.y), p.train_seed, p.val_seed)
    second_order(spy, spy.w, spy.alpha, case.inner)
    assert seen == [weight.data_ptr() for weight in case.supernet.weight_parameters()]
