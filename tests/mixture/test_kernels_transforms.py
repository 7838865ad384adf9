"""Under torch.func, forward mode and in gradients of gradients, kernels equal the reference, never a silent zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernel_nets import KERNELS, LEVELS, distance, flat, inputs, reference_copy, supernet
from torch import Tensor, nn
from torch.autograd import forward_ad

from nasact.mixture import Bank, Layout

every_kernel = pytest.mark.parametrize("kernel", KERNELS)
every_level = pytest.mark.parametrize("level", LEVELS)
# from torch itself: its forward mode loads decompositions by the deprecated torch.jit.script
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")


def along(tensor: Tensor) -> Tensor:
    """A direction that is the same for float32 and float64."""
    return torch.linspace(-1, 1, tensor.numel(), dtype=tensor.dtype).view_as(tensor)


def call(module: nn.Module, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
    y: Tensor = torch.func.functional_call(module, parameters, (x,))
    return y


def loss_of(module: nn.Module, x: Tensor) -> Callable[[dict[str, Tensor]], Tensor]:
    return lambda parameters: call(module, parameters, x).square().sum()


def parameters_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


def alphas_and_betas(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in parameters_of(module).items() if "alpha" in name or "betas" in name}


def vmap_over_parameters(module: nn.Module, x: Tensor) -> Tensor:
    stacked = {name: torch.stack([each, 1.1 * each]) for name, each in parameters_of(module).items()}
    return torch.func.vmap(lambda parameters: call(module, parameters, x))(stacked)


def dual_inputs(module: nn.Module, x: Tensor) -> Tensor:
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(module(forward_ad.make_dual(x, along(x)))).tangent
        assert tangent is not None
        return tangent


def dual_parameters(module: nn.Module, x: Tensor, only: str = "") -> Tensor:
    with forward_ad.dual_level():
        dual = {
            name: forward_ad.make_dual(each, along(each))
            for name, each in alphas_and_betas(module).items()
            if only in name
        }
        tangent = forward_ad.unpack_dual(call(module, dual, x)).tangent
        assert tangent is not None
        return tangent


def dual_cotangent(module: nn.Module, x: Tensor) -> Any:
    """Forward mode over a backward pass whose forward pass was computed without forward mode."""
    x = x.clone().requires_grad_()
    y = module(x)
    with forward_ad.dual_level():
        found = torch.autograd.grad(y, (x, *module.parameters()), forward_ad.make_dual(y.detach(), along(y)))
        return [forward_ad.unpack_dual(each).tangent for each in found]


def batched_cotangents(module: nn.Module, x: Tensor, create_graph: bool = False) -> Any:
    x = x.clone().requires_grad_()
    y = module(x)
    many = torch.stack([torch.ones_like(y), along(y)])
    found = torch.autograd.grad(y, (x, *module.parameters()), many, is_grads_batched=True, create_graph=create_graph)
    return torch.autograd.grad(sum(each.square().sum() for each in found), x) if create_graph else found  # type: ignore[union-attr]


def batched_second_cotangents(module: nn.Module, x: Tensor) -> Any:
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
    many = torch.stack([torch.ones_like(found), along(found)])
    return torch.autograd.grad(found, (x, *module.parameters()), many, is_grads_batched=True)


def third_order(module: nn.Module, x: Tensor) -> Any:
    x = x.clone().requires_grad_()
    total = module(x).square().sum()
    for _ in range(2):
        found = torch.autograd.grad(total, (x, *module.parameters()), create_graph=True, materialize_grads=True)
        total = sum((each.square().sum() for each in found), torch.zeros((), dtype=x.dtype))
    return torch.autograd.grad(total, (x, *module.parameters()), materialize_grads=True)


TRANSFORMS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "functional_call": lambda module, x: call(module, {n: 1.1 * each for n, each in parameters_of(module).items()}, x),
    "grad": lambda module, x: torch.func.grad(loss_of(module, x))(parameters_of(module)),
    "grad of grad": lambda module, x: torch.func.grad(
        lambda p: torch.func.grad(loss_of(module, x))(p)["model.first.weight"].square().sum()
    )(parameters_of(module)),
    "vjp": lambda module, x: torch.func.vjp(module, x)[1](along(module(x))),
    "vmap over inputs": lambda module, x: torch.func.vmap(lambda one: module(one[None])[0])(x),
    "vmap over parameters": vmap_over_parameters,
    "vmap over grad": lambda module, x: torch.func.vmap(
        lambda one: torch.func.grad(loss_of(module, one[None]))(parameters_of(module))
    )(x),
    "jvp in x": lambda module, x: torch.func.jvp(module, (x,), (along(x),))[1],
    "jvp in alphas and betas": lambda module, x: torch.func.jvp(
        lambda p: call(module, p, x),
        (alphas_and_betas(module),),
        ({n: along(each) for n, each in alphas_and_betas(module).items()},),
    )[1],
    "jvp of grad": lambda module, x: torch.func.jvp(
        torch.func.grad(lambda x: module(x).square().sum()), (x,), (along(x),)
    )[1],
    "jacrev": lambda module, x: torch.func.jacrev(lambda one: module(one[None]))(x[0]),
    "jacfwd": lambda module, x: torch.func.jacfwd(lambda p: call(module, p, x))(alphas_and_betas(module)),
    "hessian": lambda module, x: torch.func.hessian(loss_of(module, x))(alphas_and_betas(module)),
    "dual inputs": dual_inputs,
    "dual alphas and betas": dual_parameters,
    "dual betas": lambda module, x: dual_parameters(module, x, "betas"),
    "dual cotangent": dual_cotangent,
    "batched cotangents": batched_cotangents,
    "batched cotangents, differentiated": lambda module, x: batched_cotangents(module, x, create_graph=True),
    "batched second cotangents": batched_second_cotangents,
    "jacobian, vectorised": lambda module, x: torch.autograd.functional.jacobian(module, x, vectorize=True),
    "jacobian, forward": lambda module, x: torch.autograd.functional.jacobian(
        module, x, vectorize=True, strategy="forward-mode"
    ),
    "third order": third_order,
}


def test_the_transforms_are_found() -> None:
    assert len(TRANSFORMS) >= 23


@pytest.mark.parametrize("transform", TRANSFORMS)
@every_level
@every_kernel
def test_a_transform_gives_the_reference_s_numbers(kernel: str, level: str, transform: str) -> None:
    net, x = supernet(kernel, level), inputs(3)
    true = TRANSFORMS[transform](reference_copy(net), x.double())
    assert any(float(tensor.abs().max()) > 1e-3 for tensor in flat(true))
    assert distance(TRANSFORMS[transform](net, x), true) < 2e-4


@every_kernel
def test_weights_that_x_depends_on_get_only_their_own_gradient(kernel: str) -> None:
    def repeated_gradients(bank: Bank, dtype: torch.dtype) -> list[Tensor]:
        x = torch.linspace(-2, 2, 9, dtype=dtype, requires_grad=True)
        p = torch.tensor([0.3, 0.5, -0.2], dtype=dtype, requires_grad=True)
        total, found = bank(bank(x, p), p).square().sum(), []
        for _ in range(3):
            found += torch.autograd.grad(total, (x, p, *bank.parameters()), create_graph=True)
            total = sum((each.square().sum() for each in found[-2:]), torch.zeros((), dtype=dtype))
        return found

    bank = Bank(("tanh", "sin", "snake"), Layout(), kernel=kernel)
    assert (
        distance(repeated_gradients(bank, torch.float32), repeated_gradients(reference_copy(bank), torch.float64))
        < 1e-4
    )  # type: ignore[arg-type]
