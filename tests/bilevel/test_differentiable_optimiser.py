"""The inner step is torch's own optimiser step, as a pure differentiable function."""

from __future__ import annotations

import copy

import pytest
import torch
from bilevel_problems import OPTIMISERS
from torch import nn

from nasact.bilevel.differentiable_optimiser import RULES, inner_step
from nasact.errors import StudyError


def parameters(seed: int = 0, dtype=torch.float64) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in ((3, 2), (4,), ())]


def random_gradients(weights: list[nn.Parameter], seed: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(w.shape, generator=generator, dtype=torch.float64).to(w.dtype) for w in weights)


def real_step(optimiser: torch.optim.Optimizer, weights: list[nn.Parameter], grads) -> None:
    for weight, grad in zip(weights, grads, strict=True):
        weight.grad = None if grad is None else grad.clone()
    optimiser.step()


def test_every_rule_is_among_the_optimisers_tested() -> None:
    tested = {type(build(parameters())) for build in OPTIMISERS.values()}
    assert len(OPTIMISERS) >= 7
    assert tested == set(RULES)


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_inner_step_is_the_step_that_the_optimiser_takes(name: str, dtype: torch.dtype, tolerance: float) -> None:
    weights = parameters(dtype=dtype)
    optimiser = OPTIMISERS[name](weights)
    for step in range(4):
        grads = random_gradients(weights, step)
        predicted = inner_step(optimiser, weights)(tuple(w.detach().clone() for w in weights), grads)
        real_step(optimiser, weights, grads)
        for one, other in zip(predicted, weights, strict=True):
            torch.testing.assert_close(one, other.detach(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_chained_inner_steps_update_the_optimiser_state_too(name: str) -> None:
    weights = parameters()
    optimiser = OPTIMISERS[name](weights)
    real_step(optimiser, weights, random_gradients(weights, 99))
    inner, w = inner_step(optimiser, weights), tuple(weight.detach().clone() for weight in weights)
    for step in range(3):
        w, inner = inner.step(w, random_gradients(weights, step))
        real_step(optimiser, weights, random_gradients(weights, step))
    torch.testing.assert_close(w, tuple(weight.detach() for weight in weights), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_inner_step_changes_neither_weights_nor_optimiser(name: str) -> None:
    weights = parameters()
    optimiser = OPTIMISERS[name](weights)
    real_step(optimiser, weights, random_gradients(weights, 0))
    w, before = [p.detach().clone() for p in weights], copy.deepcopy(optimiser.state_dict())
    inner_step(optimiser, weights).step(tuple(p.detach() for p in weights), random_gradients(weights, 1))
    after = optimiser.state_dict()
    assert after["param_groups"] == before["param_groups"]
    torch.testing.assert_close(after["state"], before["state"], rtol=0, atol=0)
    torch.testing.assert_close(w, [p.detach() for p in weights], rtol=0, atol=0)


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("warm", [False, True])
def test_derivative_of_the_inner_step_is_correct(name: str, warm: bool) -> None:
    weights = parameters()
    optimiser = OPTIMISERS[name](weights)
    if warm:
        real_step(optimiser, weights, random_gradients(weights, 0))
    inner = inner_step(optimiser, weights)
    inputs = tuple(tensor.detach().clone().requires_grad_() for tensor in (*weights, *random_gradients(weights, 1)))
    assert torch.autograd.gradcheck(lambda *t: inner(t[:3], t[3:]), inputs)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_gradient_of_zero_has_a_finite_derivative(name: str) -> None:
    weights = [nn.Parameter(torch.zeros(3))]
    inner = inner_step(OPTIMISERS[name](weights), weights)
    grad = torch.zeros(3, requires_grad=True)
    (moved,) = inner((torch.zeros(3),), (grad,))
    (slope,) = torch.autograd.grad(moved.sum(), grad)
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize("name", OPTIMISERS)
def test_weight_without_gradient_does_not_change_even_with_weight_decay(name: str) -> None:
    weights = parameters()
    optimiser = OPTIMISERS[name](weights)
    first, _, third = random_gradients(weights, 0)
    w = tuple(p.detach().clone() for p in weights)
    predicted = inner_step(optimiser, weights)(w, (first, None, third))
    real_step(optimiser, weights, (first, None, third))
    assert torch.equal(predicted[1], w[1])
    assert torch.equal(weights[1].detach(), w[1])


def test_weight_outside_the_optimiser_does_not_change() -> None:
    weights = parameters()
    inner = inner_step(torch.optim.SGD(weights[:2], lr=0.1), weights)
    w = tuple(p.detach() for p in weights)
    assert torch.equal(inner(w, random_gradients(weights, 0))[2], w[2])


def test_groups_keep_their_own_learning_rates() -> None:
    weights = parameters()
    groups = [{"params": weights[:1]}, {"params": weights[1:], "lr": torch.tensor(0.5)}]
    optimiser = torch.optim.SGD(groups, lr=0.1)
    w, grads = tuple(p.detach() for p in weights), random_gradients(weights, 0)
    moved = inner_step(optimiser, weights)(w, grads)
    torch.testing.assert_close(moved[0], w[0] - 0.1 * grads[0])
    torch.testing.assert_close(moved[1], w[1] - 0.5 * grads[1])


def test_unknown_optimiser_is_refused_and_the_known_ones_are_listed() -> None:
    class MySGD(torch.optim.SGD):
        pass

    weights = parameters()
    for optimiser in (torch.optim.RMSprop(weights), MySGD(weights, lr=0.1)):
        with pytest.raises(StudyError, match=f"{type(optimiser).__name__} is not known.*SGD, Adam, AdamW"):
            inner_step(optimiser, weights)
