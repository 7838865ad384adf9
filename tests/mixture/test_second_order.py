"""Every kernel has derivatives of any order, equal to those in float64 and never silently zero."""

from __future__ import annotations

import pytest
import torch
from mixture_oracles import LEVELS, THIRTEEN, assert_close, double_backward, exact, layout, make_bank
from torch import Tensor

from nasact.mixture import KERNELS, Bank, Layout

every_level = pytest.mark.parametrize("level", LEVELS)
every_kernel = pytest.mark.parametrize("kernel", KERNELS.names())


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def higher_derivatives(
    bank: Bank, x: Tensor, weights: Tensor, cotangents: dict[str, Tensor], uses: tuple[str, ...] = ("a", "c")
) -> dict[str, Tensor]:
    """Derivatives of order 2 and 3 along random directions, with respect to all inputs and cotangents.

    s = <a, dx> + <c, dweights>, where dx and dweights are the gradients of <g, y>. Order 2: the gradients of s.
    Order 3: the gradients of <m, order 2>. `uses`: which of a and c take part.
    """
    inputs = {name: tensor.clone().requires_grad_() for name, tensor in cotangents.items()}
    weights = weights.detach().clone().requires_grad_()
    x = x.detach().clone().requires_grad_()
    leaves = {"x": x, "weights": weights, "g": inputs["g"], **dict(bank.named_parameters())}
    first = torch.autograd.grad(bank(x, weights), (x, weights), inputs["g"], create_graph=True)
    s = sum((inputs[name] * out).sum() for name, out in zip(("a", "c"), first, strict=True) if name in uses)
    options = {"materialize_grads": True, "allow_unused": True}
    second = torch.autograd.grad(s, tuple(leaves.values()), create_graph=True, **options)
    t = sum((inputs[f"m_{name}"] * out).sum() for name, out in zip(leaves, second, strict=True))
    by = {**leaves, **{name: inputs[name] for name in uses}}
    third = torch.autograd.grad(t, tuple(by.values()), create_graph=True, **options)
    found = {f"2 by {name}": out for name, out in zip(leaves, second, strict=True)}
    found |= {f"3 by {name}": out for name, out in zip(by, third, strict=True)}
    return {name: out.detach() for name, out in found.items()}


def directions(bank: Bank, x: Tensor, weights: Tensor) -> dict[str, Tensor]:
    like = {"g": x, "a": x, "c": weights, "m_x": x, "m_weights": weights, "m_g": x}
    like |= {f"m_{name}": parameter for name, parameter in bank.named_parameters()}
    return {name: torch.randn(tensor.shape) for name, tensor in like.items()}


@pytest.mark.parametrize("uses", [("a", "c"), ("a",), ("c",)], ids=["both", "only d x", "only d weights"])
@pytest.mark.parametrize("names", [THIRTEEN, ("tanh", "softmax", "snake", "sin")], ids=["tabulated", "mixed"])
@every_level
@every_kernel
def test_second_and_third_derivatives_equal_those_in_float64_and_are_not_silently_zero(
    kernel: str, level: str, names: tuple[str, ...], uses: tuple[str, ...]
) -> None:
    x = 2 * torch.randn(4, 3, 5)
    x[1, 2, 3], x[3, 0, 1] = 40.0, -55.0
    bank = make_bank(names, layout(level, x.shape), kernel)
    weights = torch.randn(*bank.layout.shape, len(names))
    cotangents = directions(bank, x, weights)
    found = higher_derivatives(bank, x, weights, cotangents, uses)
    doubled = {name: tensor.double() for name, tensor in cotangents.items()}
    true = higher_derivatives(exact(bank), x.double(), weights.double(), doubled, uses)
    nonzero = {name for name, value in true.items() if float(value.abs().max()) > 0.1}
    linear = {"2 by weights", "3 by weights"}  # the op is linear in its weights: <c, dweights> does not depend on them
    assert nonzero == true.keys() - (linear if uses == ("c",) else set())
    assert_close(found, true, 3e-5)


@every_level
@every_kernel
def test_a_gradient_penalty_on_many_elements_reaches_the_weights(kernel: str, level: str) -> None:
    shape = (300, 4, 8)
    x = torch.randn(shape)
    bank = make_bank(THIRTEEN, layout(level, shape), kernel)
    weights = torch.randn(*bank.layout.shape, 13)

    def penalty(bank: Bank, x: Tensor, weights: Tensor) -> dict[str, Tensor]:
        x, weights = x.clone().requires_grad_(), weights.clone().requires_grad_()
        (dx,) = torch.autograd.grad(bank(x, weights).sin().sum(), x, create_graph=True)
        return dict(zip(("x", "weights"), torch.autograd.grad(dx.square().sum(), (x, weights)), strict=True))

    true = penalty(exact(bank), x.double(), weights.double())
    assert float(true["weights"].abs().max()) > 1
    assert_close(penalty(bank, x, weights), true, 1e-5)


@every_level
@every_kernel
def test_with_frozen_weights_or_inputs_the_other_second_derivatives_exist(kernel: str, level: str) -> None:
    x, g, a = 2 * torch.randn(5, 4, 3), torch.randn(5, 4, 3), torch.randn(5, 4, 3)
    x[0, 0, 0] = 60.0
    bank = make_bank(THIRTEEN, layout(level, x.shape), kernel)
    weights, c = torch.randn(*bank.layout.shape, 13), torch.randn(*bank.layout.shape, 13)

    def frozen_weights(bank: Bank, x: Tensor, weights: Tensor, g: Tensor, a: Tensor, c: Tensor) -> dict[str, Tensor]:
        x, g = x.clone().requires_grad_(), g.clone().requires_grad_()
        (dx,) = torch.autograd.grad(bank(x, weights), x, g, create_graph=True)
        second = torch.autograd.grad(dx, (x, g), a, create_graph=True)
        (third,) = torch.autograd.grad(second[0], x, a)
        return {"x": second[0].detach(), "g": second[1].detach(), "third": third}

    def frozen_input(bank: Bank, x: Tensor, weights: Tensor, g: Tensor, a: Tensor, c: Tensor) -> dict[str, Tensor]:
        weights, g = weights.clone().requires_grad_(), g.clone().requires_grad_()
        (dweights,) = torch.autograd.grad(bank(x, weights), weights, g, create_graph=True)
        (to_g,) = torch.autograd.grad(dweights, g, c)
        return {"g": to_g}

    for pull in (frozen_weights, frozen_input):
        true = pull(exact(bank), *(tensor.double() for tensor in (x, weights, g, a, c)))
        assert all(float(value.abs().max()) > 0.1 for value in true.values())
        assert_close(pull(bank, x, weights, g, a, c), true, 1e-5)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("names", [THIRTEEN, ("tanh", "softmax", "snake", "sin")], ids=["tabulated", "mixed"])
@every_level
@every_kernel
def test_chained_mixtures_that_share_their_weights_have_total_derivatives(
    kernel: str, level: str, names: tuple[str, ...], order: int
) -> None:
    x = torch.randn(6, 3, 5)
    bank = make_bank(names, layout(level, x.shape), kernel)
    weights = torch.randn(*bank.layout.shape, len(names)) / 4
    probes = [torch.randn(weights.shape) for _ in range(order - 1)]

    def total(bank: Bank, x: Tensor, weights: Tensor, *probes: Tensor) -> dict[str, Tensor]:
        weights = weights.clone().requires_grad_()
        betas = tuple(bank.parameters())
        inner = bank(x + weights.mean(), weights)
        found = bank(inner * sum((beta.mean() for beta in betas), torch.ones(())), weights).square().mean()
        for probe in probes:
            (gradient,) = torch.autograd.grad(found, weights, create_graph=True)
            found = (gradient * probe).sum()
        gradients = torch.autograd.grad(found, (weights, *betas))
        return {str(position): gradient for position, gradient in enumerate(gradients)}

    true = total(exact(bank), x.double(), weights.double(), *(probe.double() for probe in probes))
    assert all(float(value.abs().max()) > 1e-6 for value in true.values())
    largest = {name: value.abs().max() for name, value in true.items()}
    found = total(bank, x, weights, *probes)
    assert_close({n: v / largest[n] for n, v in found.items()}, {n: v / largest[n] for n, v in true.items()}, 1e-4)


@every_kernel
def test_the_identity_with_fixed_weights_has_higher_derivatives_of_zero(kernel: str) -> None:
    x = torch.tensor([1.0, -2.0, 50.0], requires_grad=True)
    y = make_bank(("identity",), Layout(), kernel)(x, torch.tensor([2.0]))
    (dx,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    assert torch.equal(dx, torch.full((3,), 2.0))
    for _ in range(2):
        if dx.requires_grad:
            (dx,) = torch.autograd.grad(dx.sum(), x, create_graph=True, materialize_grads=True)
            assert torch.equal(dx, torch.zeros(3))


@pytest.mark.parametrize("kernel", ["auto", "table", "fused"])
def test_a_fourth_derivative_exists(kernel: str) -> None:
    x = torch.linspace(-3, 3, 40, requires_grad=True)
    y = make_bank(("tanh",), Layout(), kernel)(x, torch.ones(1))
    for _ in range(4):
        (y,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    t = torch.tanh(x.detach().double())
    expected = 8 * t * (2 - 3 * t**2) * (1 - t**2)
    assert float(expected.abs().max()) > 3
    torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=1e-4)


@every_level
@pytest.mark.parametrize("kernel", ["auto", "table"])
def test_bfloat16_has_gradients_of_gradients(kernel: str, level: str) -> None:
    shape = (4, 6, 3)
    x, g, a = (tensor.bfloat16() for tensor in (2 * torch.randn(shape), torch.randn(shape), torch.randn(shape)))
    x[0, 1, 2] = 48.0
    bank = make_bank(THIRTEEN, layout(level, shape), kernel)
    weights = torch.randn(*bank.layout.shape, 13)
    found = double_backward(bank, x, weights, g, a)
    true = double_backward(exact(bank), x.double(), weights.double(), g.double(), a.double())
    assert [tensor.dtype for tensor in found] == [torch.bfloat16] * 2 + [torch.float32, torch.bfloat16, torch.float32]
    named = ("y", "x", "weights", "2 by x", "2 by weights")
    assert_close(dict(zip(named, found, strict=True)), dict(zip(named, true, strict=True)), 1e-2)
