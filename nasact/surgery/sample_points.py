"""The points and shapes at which a callable of one tensor is run, to find out what it computes (see `elementwise`)."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

# The number of points is a multiple of this: every shape below has at most this product in all but one dimension.
_BLOCK = 96
_KINKS = (0.0, 0.5, 1.0, 2.0, 3.0, 6.0)
_FAR = (12.0, 16.0, 20.0, 25.0, 30.0, 50.0, 75.0)


@dataclass(frozen=True)
class SamplePoints:
    """The points at which a callable is run, and the shapes in which it gets them.

    `points` (P, float64): first `slope_count` points at which no formula is likely to have a kink, then points at which
    many formulas have one, up to `value_count` (0, -100 and 100 come first, see `line_at`); then the neighbours of the
    first ones, see `around`; then zeros. The points up to `value_count` are exact in float32.
    `weights` (P): a gradient of the outputs, of both signs and of many sizes, so that a backward pass is found that
    clips, rectifies or ignores it. `shapes`: of one to four dimensions, of P elements.
    `regroupings`: tensors of positions in `points`: in another order, with one changed, small ones only, and others.
    """

    points: Tensor
    slope_count: int
    value_count: int
    weights: Tensor
    shapes: tuple[tuple[int, ...], ...]
    regroupings: tuple[Tensor, ...]

    def around(self, values: Tensor) -> Tensor:
        """The values (P) at the lower neighbours of the first points, at these points, at their upper neighbours."""
        count = self.slope_count
        lower, upper = values[self.value_count :][: 2 * count].reshape(2, count)
        return torch.stack([lower, values[:count], upper])

    def line_at(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The values (P) at 0, -100 and 100, without dimensions."""
        zero, low, high = values[self.slope_count :][:3]
        return zero, low, high


@functools.cache
def sample_points() -> SamplePoints:
    """The points; made once, on the CPU. Callers must not write to them, nor call this first in inference mode."""
    generic, special = _generic_points(), _special_points()
    # two different steps, because rounding to float32 is symmetric around a point that is exact in float32
    points = torch.cat([generic, special, generic - 1e-6, generic + 1.37e-6])
    points = torch.cat([points, points.new_zeros(-len(points) % _BLOCK)])
    count, generator = len(points), torch.Generator().manual_seed(0)
    weights = 10 ** (6 * torch.rand(count, generator=generator, dtype=torch.float64) - 3)
    weights[torch.randint(2, (count,), generator=generator) == 0] *= -1
    shapes = ((count,), (24, count // 24), (4, 12, count // 48), (2, 12, 4, count // 96))
    order = torch.randperm(count, generator=generator)
    one_changed = order.clone()
    one_changed[count // 3] = len(generic) + 2
    small = order[points[order].abs() < 1]
    regroupings = (
        *(order.reshape(shape) for shape in shapes),
        one_changed.reshape(shapes[1]),
        *(small[:24].reshape(shape) for shape in ((24,), (6, 4), (1, 24, 1), (1, 12, 2, 1))),
        order[points[order] > 0][:31],
        order[points[order] < 0][:31],
        small[24:25],
    )
    return SamplePoints(points, len(generic), len(generic) + len(special), weights, shapes, regroupings)


def _generic_points() -> Tensor:
    """Points from -100 to 100: evenly up to 8, and in steps of constant ratio near zero and beyond 8."""
    even = (-8.0 + 0.00123 + step / 30 for step in range(480))
    positive = [*(10 ** -(1 + step / 6) for step in range(31)), *(8.11 * 1.0648**step for step in range(41))]
    return _exact_in_float32([*even, *positive, *(-x for x in positive)])


def _special_points() -> Tensor:
    near = (sign * (kink + off) for sign in (-1, 1) for kink in _KINKS for off in (1e-4, -1e-4, 0.01, -0.01))
    far = (sign * size for sign in (-1, 1) for size in _FAR)
    return _exact_in_float32([0.0, -100.0, 100.0, *(quarter / 4 for quarter in range(-40, 41)), *far, *near])


def _exact_in_float32(values: Iterable[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float32).double()
