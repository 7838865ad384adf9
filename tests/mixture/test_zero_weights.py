"""A candidate with weight zero has no part in the value; the gradients of every order are those of the plain sum."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from nasact.mixture import Bank, Layout, Mixture
from nasact.mixture.kernels.reference import mix

NAMES = ("relu", "tanh", "snake", "squared_relu", "softmax")
LAYOUTS = {
    "layer": Layout(),
    "channel": Layout(level="channel", shape=(3,)),
    "neuron": Layout(level="neuron", shape=(3, 2)),
}
# which of the candidates have weight zero everywhere
ZEROS = {"none": (), "one": (1,), "with_beta": (2,), "several": (0, 2, 4), "all_but_one": (0, 1, 2, 3), "all": range(5)}


def case(level: str, zeros: str) -> tuple[Bank, Tensor, Tensor]:
    torch.manual_seed(0)
    layout = LAYOUTS[level]
    bank = Bank(NAMES, layout, kernel="reference", dtype=torch.float64)
    weights = torch.rand(*layout.shape, len(NAMES), dtype=torch.float64)
    weights[..., list(ZEROS[zeros])] = 0
    return bank, torch.randn(4, 3, 2, dtype=torch.float64).requires_grad_(), weights.requires_grad_()


def derivatives(y: Tensor, variables: list[Tensor]) -> list[Tensor]:
    """The first derivatives, the second derivatives, and the second derivatives without a graph of the first."""
    torch.manual_seed(1)
    first = torch.autograd.grad((y * torch.randn_like(y)).sum(), variables, create_graph=True)
    mixed = sum((gradient * torch.randn_like(gradient)).sum() for gradient in first)
    assert isinstance(mixed, Tensor)
    second = torch.autograd.grad(mixed, variables, create_graph=True, materialize_grads=True)
    third = sum((gradient * torch.randn_like(gradient)).sum() for gradient in second)
    assert isinstance(third, Tensor)
    return [*first, *second, *torch.autograd.grad(third, variables, materialize_grads=True)]


@pytest.mark.parametrize("zeros", ZEROS)
@pytest.mark.parametrize("level", LAYOUTS)
def test_value_and_derivatives_of_three_orders_equal_those_of_the_plain_sum(level: str, zeros: str) -> None:
    bank, x, weights = case(level, zeros)
    variables = [x, weights, *bank.betas.values()]
    assert len(variables) == 3
    y, plain = bank(x, weights), mix(x, weights, bank.terms(x), bank.layout)
    torch.testing.assert_close(y, plain, rtol=1e-12, atol=1e-12)
    once = [torch.autograd.grad(each.sum(), variables, retain_graph=True) for each in (y, plain)]
    for found, expected in zip(*once, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for found, expected in zip(derivatives(y, variables), derivatives(plain, variables), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("zeros", ["several", "all_but_one"])
@pytest.mark.parametrize("level", LAYOUTS)
def test_gradients_of_a_batch_of_cotangents_and_under_vmap_equal_those_of_the_plain_sum(level: str, zeros: str) -> None:
    bank, x, weights = case(level, zeros)
    cotangents = torch.randn(3, *x.shape, dtype=torch.float64)
    results = []
    for y in (bank(x, weights), mix(x, weights, bank.terms(x), bank.layout)):
        results.append(torch.autograd.grad(y, [x, weights], cotangents, is_grads_batched=True))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    jacobian = torch.func.jacrev(lambda p: bank(x, p).sum((0, 1)))(weights)
    rows = [torch.autograd.grad(bank(x, weights).sum((0, 1))[k], weights)[0] for k in range(2)]
    torch.testing.assert_close(jacobian, torch.stack(rows))


def test_gradcheck_of_first_and_second_order() -> None:
    bank, x, weights = case("channel", "several")
    assert torch.autograd.gradcheck(bank, (x, weights))
    assert torch.autograd.gradgradcheck(bank, (x, weights))


def test_weights_that_are_not_trained_cost_no_pass_of_their_candidates() -> None:
    calls: list[Tensor] = []

    def counting(x: Tensor) -> Tensor:
        calls.append(x)
        return x

    bank, x, weights = case("layer", "several")
    terms = bank.terms(x)
    counted = [replace(term, function=counting, betas=()) for term in terms]
    for trained, expected in ((True, 5), (False, 2)):
        calls.clear()
        bank.op(x, weights.detach().requires_grad_(trained), lambda: counted)
        assert len(calls) == expected


@pytest.mark.parametrize("dropped", [("relu",), ("relu", "squared_relu")])
def test_a_dropped_candidate_that_overflows_leaves_no_trace(dropped: tuple[str, ...]) -> None:
    bank = Bank(("relu", "tanh", "sin", "squared_relu"), Layout(), kernel="reference")
    mixture = Mixture(bank, normaliser="affine", init="tanh")
    mixture.drop(dropped)
    x = torch.tensor([1e30, -1e30, 0.5]).requires_grad_()
    (gradient,) = torch.autograd.grad(mixture(x).sum(), x)
    assert mixture(x).isfinite().all()
    assert gradient.isfinite().all()


def test_weights_are_zero_for_a_whole_candidate_or_not_at_all() -> None:
    """Only candidates without any weight are left out: a row of the others is the plain product."""
    bank = Bank(("relu", "squared_relu"), Layout(level="channel", shape=(2,)), kernel="reference")
    x = torch.tensor([[2.0, 3.0]])
    weights = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    assert bank(x, weights).tolist() == [[2.0, 6.0]]
