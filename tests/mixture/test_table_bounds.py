"""The errors of the table, for every function that it can hold, are within the bounds stated here.

The oracle is the function in float64, by autograd. Outside the knots, and for inf and NaN, the table is bit-identical
to the function in float32.
"""

from __future__ import annotations

import math

import pytest
import torch
from mixture_oracles import ANALYTIC, TABULABLE, THIRTEEN, gradients, layout, make_bank
from torch import Tensor

from nasact import activations
from nasact.errors import MixtureError
from nasact.mixture import Layout, Table
from nasact.mixture.kernels.reference import mix
from nasact.mixture.table import op
from nasact.mixture.table.basis import SLACK, Grid, derivative, find_obstacle

BOUNDS = (3e-7, 1.5e-6, 5e-6)
"""Largest error of value, slope and curvature on the default grid, in units of max(1, |true|). A float32 has 6e-8."""
TINY = 6e-5
"""Largest error of a value near zero, in units of |x|, without rounding: softsign's; the others are below 1e-5."""
FAR = 1e12
"""Up to this |x| the bounds hold against float64. Beyond it some formulas overflow in float32, and so in the table."""

GRID = Grid()
KINKS = [(name, kink) for name in TABULABLE for kink in activations.get(name).kinks]
SMALLEST, SMALLEST_NORMAL = 2.0**-149, 2.0**-126
every_function = pytest.mark.parametrize("name", TABULABLE)
every_order = pytest.mark.parametrize("order", range(3), ids=("value", "slope", "curvature"))


def table(name: str, x: Tensor, order: int, grid: Grid = GRID) -> Tensor:
    """The `order`-th derivative of one function by autograd of the op with weight 1, as in a network."""
    x = x.detach().requires_grad_()
    y = op.mix(op.TabulatedBank(grid, (name,), Layout()), x, torch.ones(1))
    for level in range(order):
        (y,) = torch.autograd.grad(y, x, torch.ones_like(y), create_graph=level + 1 < order)
    return y.detach()


def true(name: str, x: Tensor, order: int) -> Tensor:
    """The `order`-th derivative of the function itself, in the dtype of x."""
    return derivative(activations.get(name).function, x, order)


def same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(0.5), b.nan_to_num(0.5))


def worst(found: Tensor, expected: Tensor) -> float:
    return float(((found.double() - expected).abs() / expected.abs().clamp_min(1)).max())


def inside() -> Tensor:
    """Points inside the table: evenly spaced, random, near zero, on the knots and next to every knot on both sides."""
    knots = torch.arange(-512, 513) / 16
    up, down = torch.tensor(math.inf), torch.tensor(-math.inf)
    torch.manual_seed(0)
    points = (
        torch.linspace(-32, 32, 40_001),
        3 * torch.randn(20_000),
        0.1 * torch.randn(5_000),
        knots,
        torch.nextafter(knots, up),
        torch.nextafter(knots, down),
    )
    x = torch.cat(points)
    return x[x.abs() < 32]


def whole_range() -> Tensor:
    """Points on a fine logarithmic grid of both signs, random bit patterns, NaN and inf."""
    torch.manual_seed(0)
    powers = torch.logspace(-45.2, 38.53, 20_000, dtype=torch.float64).float()
    patterns = torch.randint(-(2**31), 2**31, (40_000,)).to(torch.int32).view(torch.float32)
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 32.0, -32.0, 3.4028234e38, -3.4028234e38])
    return torch.cat([powers, -powers, patterns, special])


def test_exactly_the_functions_listed_as_analytic_cannot_be_tabulated() -> None:
    reasons = {name: find_obstacle(GRID, name) for name in (*TABULABLE, *ANALYTIC)}
    assert [name for name, reason in reasons.items() if reason is None] == list(TABULABLE)
    assert len(TABULABLE) >= 33
    assert len(KINKS) >= 14


# ---- the bounds -----------------------------------------------------------------------------------------------------


@every_order
@every_function
def test_inside_the_table_the_error_is_within_the_stated_bound(name: str, order: int) -> None:
    x = inside()
    at_a_kink = torch.isin(x, torch.tensor([kink for kink in activations.get(name).kinks if kink]))
    x = x[~at_a_kink]  # there are two slopes: see the test of kinks
    assert worst(table(name, x, order), true(name, x.double(), order)) <= BOUNDS[order]


@every_order
@every_function
def test_over_the_whole_float32_range_the_error_is_within_the_bound_or_the_function_is_computed(
    name: str, order: int
) -> None:
    x = whole_range()
    found, expected = table(name, x, order), true(name, x.double(), order)
    near = x.abs() < FAR
    assert near.any()
    assert worst(found[near], expected[near]) <= BOUNDS[order]
    outside = ~(x.abs() < 32)
    assert outside.any()
    assert same_bits(found[outside], true(name, x[outside], order))


def test_the_gradient_of_the_weights_is_within_the_same_bound() -> None:
    x = inside().requires_grad_()
    weights = torch.ones(len(TABULABLE), requires_grad=True)
    g = torch.randn(x.shape)
    y = op.mix(op.TabulatedBank(GRID, TABULABLE, Layout()), x, weights)
    (found,) = torch.autograd.grad(y, weights, g)
    values = torch.stack([true(name, x.double(), 0) for name in TABULABLE])
    error = (found.double() - values @ g.double()).abs()
    assert (error <= BOUNDS[0] * values.abs().clamp_min(1) @ g.double().abs()).all()


@pytest.mark.parametrize(
    "grid",
    [
        Grid(low=-8.0, high=8.0, knots=257),
        Grid(low=-4.0, high=12.0, knots=513),
        Grid(low=0.0, high=32.0, knots=513),
        Grid(low=-10.0, high=10.0, knots=1001),
        Grid(low=-32.0, high=32.0, knots=129, tolerance=1e-3),
    ],
    ids=lambda grid: f"{grid.low:g}..{grid.high:g}/{grid.knots}",
)
def test_on_any_grid_a_tabulated_function_keeps_the_tolerance(grid: Grid) -> None:
    names = [name for name in THIRTEEN if find_obstacle(grid, name) is None]
    assert len(names) >= 6
    torch.manual_seed(0)
    x = torch.cat([torch.linspace(grid.low - 3, grid.high + 3, 10_001), torch.randn(2_000), torch.zeros(1)])
    for name in names:
        for order in range(3):
            expected = true(name, x.double(), order)
            # where the step is no power of two, the position in the cell is rounded, as if x were rounded
            moved = 2**-23 * (x.double() * true(name, x.double(), order + 1)).abs()
            allowed = (SLACK[order] * grid.tolerance + 1e-7) * expected.abs().clamp_min(1) + moved
            assert ((table(name, x, order, grid).double() - expected).abs() <= allowed).all(), (name, order)


def test_a_requested_table_with_too_few_knots_is_refused() -> None:
    coarse = Table(knots=65)
    assert make_bank(("relu",), Layout(), coarse).names == ("relu",)
    with pytest.raises(MixtureError, match=r"cannot hold 'tanh': .* 1.0e-06, with 65 knots; 513 are enough"):
        make_bank(("relu", "tanh", "sin"), Layout(), coarse)


# ---- where the table is exact ---------------------------------------------------------------------------------------


@every_function
def test_on_a_knot_the_value_is_correctly_rounded(name: str) -> None:
    knots = torch.arange(-511, 512) / 16
    assert len(knots) == 1023
    assert same_bits(table(name, knots, 0), true(name, knots.double(), 0).float())


@every_function
def test_at_zero_value_and_slope_are_bit_identical_to_torch(name: str) -> None:
    zeros = torch.tensor([0.0, -0.0])
    assert torch.equal(table(name, zeros, 0), true(name, zeros, 0))
    assert torch.equal(table(name, zeros, 1), true(name, zeros, 1))
    assert worst(table(name, zeros, 2), true(name, zeros.double(), 2)) <= 1e-7


@pytest.mark.parametrize(("name", "kink"), KINKS)
def test_at_a_kink_the_value_is_exact_and_the_slope_is_one_of_the_two(name: str, kink: float) -> None:
    at = torch.tensor([kink])
    assert torch.equal(table(name, at, 0), true(name, at.double(), 0).float())
    sides = true(name, torch.tensor([kink - 1e-7, kink + 1e-7], dtype=torch.float64), 1)
    assert abs(float(sides[1] - sides[0])) > 0.01, "not a kink"
    slope = table(name, at, 1).double()
    if kink == 0:
        assert torch.equal(slope.float(), true(name, at, 1)), "at zero torch's choice is kept"
    else:
        assert float((slope - sides).abs().min()) <= 1e-6


@pytest.mark.parametrize(("name", "kink"), KINKS)
def test_the_floats_next_to_a_kink_have_the_slope_of_their_side(name: str, kink: float) -> None:
    ends = torch.tensor([-math.inf, math.inf])
    x = torch.cat([torch.nextafter(torch.tensor(kink), ends), kink + ends.sign() * 1e-6])
    assert worst(table(name, x, 1), true(name, x.double(), 1)) <= BOUNDS[1]


@every_function
def test_around_zero_the_error_vanishes_with_x_down_to_the_smallest_float(name: str) -> None:
    powers = torch.logspace(-45.2, math.log10(1 / 16), 5_000, dtype=torch.float64).float()
    ends = torch.tensor([SMALLEST, SMALLEST_NORMAL, 1 / 16 - 2**-28])
    x = torch.cat([powers, ends, -powers, -ends])
    x = x[x != 0]
    assert float(x.abs().min()) == SMALLEST
    expected = true(name, x.double(), 0)
    allowed = TINY * x.double().abs() + 2**-23 * expected.abs() + SMALLEST
    assert ((table(name, x, 0).double() - expected).abs() <= allowed).all()
    slopes = true(name, x.double(), 1)
    assert worst(table(name, x, 1), slopes) <= BOUNDS[1]


@every_order
@every_function
def test_there_is_no_jump_at_the_edge_of_the_table(name: str, order: int) -> None:
    edge = torch.tensor(32.0)
    just_inside, beyond = torch.nextafter(edge, torch.tensor(0.0)), torch.nextafter(edge, torch.tensor(99.0))
    x = torch.stack([just_inside, edge, beyond])
    for side in (x, -x):
        found, expected = table(name, side, order), true(name, side.double(), order)
        assert worst(found, expected) <= BOUNDS[order]
        assert same_bits(found[1:], true(name, side[1:], order))


# ---- inf and NaN ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["layer", "channel", "neuron"])
@pytest.mark.parametrize("names", [THIRTEEN, ("relu", "tanh"), ("gelu", "squared_relu", "sin")], ids=len)
def test_inf_and_nan_give_the_outputs_and_gradients_of_the_plain_sum(names: tuple[str, ...], level: str) -> None:
    torch.manual_seed(0)
    x, g = torch.randn(6, 10, 3), torch.randn(6, 10, 3)
    extreme = torch.tensor([math.inf, -math.inf, math.nan, 3e38, -3e38, 1e25, -1e25, 40.0, -40.0])
    x[2, :9, 1], x[4, 2, :] = extreme, math.inf
    where = layout(level, x.shape)
    weights = torch.randn(*where.shape, len(names))
    weights[..., 1] = 0.0  # 0 * inf is NaN
    found = gradients(make_bank(names, where, "table"), x, weights, g)
    plain = make_bank(names, where, "reference")
    plain.op = lambda x, weights, terms: mix(x, weights, terms(), where)
    expected = gradients(plain, x, weights, g)
    for name, value in expected.items():
        assert value.isnan().any(), name
        assert torch.equal(found[name].isnan(), value.isnan()), name
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5, equal_nan=True)
    if level != "layer":
        assert found["weights"].isfinite().all(-1).any(), "a row without inf or NaN must have a finite gradient"


@pytest.mark.parametrize("level", ["layer", "channel", "neuron"])
@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_an_incoming_gradient_that_is_not_finite_is_passed_on(bad: float, level: str) -> None:
    x, g = torch.randn(5, 4, 3), torch.randn(5, 4, 3)
    g[1, 2, 0] = bad
    where = layout(level, x.shape)
    found = gradients(make_bank(THIRTEEN, where, "table"), x, torch.ones(*where.shape, 13), g)
    assert not found["x"][1, 2, 0].isfinite()
    assert int(found["x"].isfinite().logical_not().sum()) == 1
    row = {"layer": (), "channel": (2,), "neuron": (2, 0)}[level]
    assert not found["weights"][row].isfinite().any()
    assert level == "layer" or found["weights"][0].isfinite().all()


# ---- bfloat16 -------------------------------------------------------------------------------------------------------


@every_function
def test_bfloat16_is_float32_rounded_once_for_every_bit_pattern(name: str) -> None:
    x = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.bfloat16)
    assert x.isnan().any()
    for order in range(2):
        found = table(name, x, order)
        assert found.dtype == torch.bfloat16
        assert same_bits(found, table(name, x.float(), order).bfloat16())


@pytest.mark.parametrize("shape", [(1, 1 << 16), (9362, 1, 7), (4681, 2, 7)], ids=["units", "a run", "short runs"])
def test_bfloat16_is_rounded_to_nearest_at_every_position(shape: tuple[int, ...]) -> None:
    x = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.bfloat16)[: math.prod(shape)].view(shape)
    g = torch.full(shape, 1.25).bfloat16()
    where = layout("neuron" if len(shape) == 2 else "channel", shape)
    bank = make_bank(("tanh", "gelu"), where, "table")
    weights = torch.rand(*where.shape, 2)
    half, full = gradients(bank, x, weights, g), gradients(bank, x.float(), weights, g.float())
    for name in ("y", "x"):
        assert same_bits(half[name], full[name].bfloat16())


def test_the_gradient_of_the_weights_is_summed_in_full_precision_for_bfloat16() -> None:
    x, g = torch.randn(20_000).bfloat16(), torch.ones(20_000).bfloat16()
    bank = make_bank(THIRTEEN, Layout(), "table")
    weights = torch.rand(13)
    half = gradients(bank, x, weights, g)["weights"]
    torch.testing.assert_close(half, gradients(bank, x.float(), weights, g.float())["weights"], rtol=1e-6, atol=1e-6)
