"""The errors of the table against float64, over the range of float32, next to the errors of float32 itself.

Usage: python benchmarks/table_errors.py [--quick] [--json FILE]. Errors are relative to max(1, |exact value|); for the
gradient of the weights they are relative to the sum of the terms' absolute values.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from command_line import parse_arguments, publish
from machine import inspect_machine
from mixture_cases import ALL
from result_tables import Group, Results, Row
from torch import Tensor

from nasact import activations
from nasact.mixture import Bank, Layout
from nasact.mixture.table.basis import ORDER_NAMES, derivative

KERNELS = ("table", "reference")


def points(count: int) -> Tensor:
    """Float32 numbers: between the knots, at them and next to them, near zero, and of every size in float32."""
    knots = torch.linspace(-32, 32, 1025)
    neighbours = [torch.nextafter(knots, torch.tensor(end)) for end in (-torch.inf, torch.inf)]
    sizes = torch.logspace(-44, 38, count // 4, dtype=torch.float64).float()
    return torch.cat([torch.rand(count) * 66 - 33, torch.randn(count), sizes, -sizes, knots, *neighbours]).unique()


def single(name: str, kernel: str) -> Callable[[Tensor], Tensor]:
    bank, one = Bank((name,), Layout(), kernel=kernel), torch.ones(1)
    return lambda x: bank(x, one)


def worst(x: Tensor, order: int, kernel: str) -> Row:
    """The row of the largest error of the `order`-th derivative over all functions, where torch's formula is finite."""
    errors = []
    for name in ALL:
        truth = derivative(activations.get(name).function, x.double(), order)
        reference = derivative(single(name, "reference"), x, order)
        error = (derivative(single(name, kernel), x, order).double() - truth).abs() / truth.abs().clamp_min(1)
        at = torch.where(reference.isfinite(), error, 0.0).argmax()
        errors.append((float(error[at]), name, float(x[at])))
    error, name, where = max(errors)
    return error_row(f"{ORDER_NAMES[order]}: {kernel}", error, f"{name} at {where:.4g}")


def worst_weights_gradient(x: Tensor, kernel: str) -> Row:
    """The row of the largest error of the 13 sums over x, each relative to the sum of its terms' absolute values."""
    g = torch.randn_like(x)
    weights = torch.full((len(ALL),), 1 / len(ALL)).requires_grad_()
    (gradient,) = torch.autograd.grad(Bank(ALL, Layout(), kernel=kernel)(x, weights), weights, g)
    terms = torch.stack([activations.get(name).function(x.double()) * g.double() for name in ALL])
    errors = (gradient.double() - terms.sum(1)).abs() / terms.abs().sum(1)
    return error_row(f"weights' gradient: {kernel}", float(errors.max()), ALL[int(errors.argmax())])


def error_row(what: str, error: float, where: str) -> Row:
    return Row(what=what, value=error, low=error, high=error, shown=f"{error:.1e} ({where})")


def main() -> None:
    args = parse_arguments(__doc__)
    torch.manual_seed(0)
    x = points(1 << (10 if args.quick else 18))
    near = x[x.abs() < 32]
    rows = [worst(x, order, kernel) for order in range(3) for kernel in KERNELS]
    rows += [worst_weights_gradient(near, kernel) for kernel in KERNELS]
    group = Group(f"Errors at {len(x)} points, against float64", tuple(rows), "worst of 13 functions")
    publish(Results("table_errors", inspect_machine(), (group,), args.quick), args.json)


if __name__ == "__main__":
    main()
