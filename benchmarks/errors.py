"""How far the table's numbers are off: against float64, over all of float32, beside what float32 itself is off.

Run it where nasact is installed: python benchmarks/errors.py [--quick] [--json FILE]. Errors are relative to
max(1, |truth|), and to the sum of |terms| for the gradient of the weights.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from cases import ALL
from report import Group, Results, Row, arguments, machine, publish
from torch import Tensor

from nasact import activations
from nasact.mixture import Bank, Layout
from nasact.mixture.table.basis import ORDER_NAMES, derivative

KERNELS = ("table", "reference")


def points(count: int) -> Tensor:
    """Float32 numbers: between the knots, on them and beside them, near zero, and out to where float32 ends."""
    knots = torch.linspace(-32, 32, 1025)
    beside = [torch.nextafter(knots, torch.tensor(end)) for end in (-torch.inf, torch.inf)]
    sizes = torch.logspace(-44, 38, count // 4, dtype=torch.float64).float()
    return torch.cat([torch.rand(count) * 66 - 33, torch.randn(count), sizes, -sizes, knots, *beside]).unique()


def single(name: str, kernel: str) -> Callable[[Tensor], Tensor]:
    bank, one = Bank((name,), Layout(), kernel=kernel), torch.ones(1)
    return lambda x: bank(x, one)


def worst(x: Tensor, order: int, kernel: str) -> Row:
    """The largest error of the `order`-th derivative over all functions, wherever torch's own formula is finite."""
    found = []
    for name in ALL:
        truth = derivative(activations.get(name).function, x.double(), order)
        own = derivative(single(name, "reference"), x, order)
        error = (derivative(single(name, kernel), x, order).double() - truth).abs() / truth.abs().clamp_min(1)
        at = torch.where(own.isfinite(), error, 0.0).argmax()
        found.append((float(error[at]), name, float(x[at])))
    error, name, where = max(found)
    return told(f"{ORDER_NAMES[order]}: {kernel}", error, f"{name} at {where:.4g}")


def worst_weights_gradient(x: Tensor, kernel: str) -> Row:
    """Of the 13 sums over x, each in units of the sum of its terms' sizes."""
    g = torch.randn_like(x)
    weights = torch.full((len(ALL),), 1 / len(ALL)).requires_grad_()
    (found,) = torch.autograd.grad(Bank(ALL, Layout(), kernel=kernel)(x, weights), weights, g)
    terms = torch.stack([activations.get(name).function(x.double()) * g.double() for name in ALL])
    errors = (found.double() - terms.sum(1)).abs() / terms.abs().sum(1)
    return told(f"weights' gradient: {kernel}", float(errors.max()), ALL[int(errors.argmax())])


def told(what: str, error: float, where: str) -> Row:
    return Row(what=what, value=error, low=error, high=error, shown=f"{error:.1e} ({where})")


def main() -> None:
    given = arguments(__doc__)
    torch.manual_seed(0)
    x = points(1 << (10 if given.quick else 18))
    near = x[x.abs() < 32]
    rows = [worst(x, order, kernel) for order in range(3) for kernel in KERNELS]
    rows += [worst_weights_gradient(near, kernel) for kernel in KERNELS]
    group = Group(f"Errors at {len(x)} points, against float64", tuple(rows), "worst of 13 functions")
    publish(Results("errors", machine(), (group,), given.quick), given.json)


if __name__ == "__main__":
    main()
