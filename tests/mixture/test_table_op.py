"""The table op as a linear map: adjoints, native code against plain torch, saved tensors, threads, rounding of sums.

Its gradients of gradients are in test_second_order.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from mixture_oracles import LEVELS, MIXED, THIRTEEN, candidates, double_backward, exact, layout, make_bank
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from nasact.mixture import KERNELS, Bank, Layout
from nasact.mixture.table import native, plain
from nasact.mixture.table.basis import Basis, Grid, basis

SHAPES = {
    "one row": (1, 1, 5000),
    "one row, few": (1, 1, 77),
    "few rows of many": (3, 4, 500),
    "rows of few": (3, 50, 5),
    "units": (9, 300, 1),
    "units of many": (1100, 3, 1),
}
"""(outer, rows, inner) of inputs. Few elements per row are computed by `direct`, many by `blend`."""
ROUNDING = 2e-6
"""Rounding error of a sum in float32, in units of the sum of the absolute values."""

every_level = pytest.mark.parametrize("level", LEVELS)
every_kernel = pytest.mark.parametrize("kernel", KERNELS.names())
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def code() -> native.Library:
    found = native.load()
    if isinstance(found, str):
        pytest.skip(f"no native code: {found}")
    return found


def test_the_shapes_cover_both_algorithms_of_the_native_code() -> None:
    few = [outer * inner < Grid().cells for outer, _, inner in SHAPES.values()]
    assert (len(SHAPES), sum(few)) == (6, 3)


# ---- the maps themselves --------------------------------------------------------------------------------------------


class Maps:
    """The op, its backward and its double backward, by native code or by plain torch, for x (outer, rows, inner)."""

    def __init__(self, code: native.Library | None) -> None:
        self.code = code

    def forward(self, tables: Basis, x: Tensor, p: Tensor) -> Tensor:
        if self.code is None:
            return plain.forward(tables, x, p)
        y = torch.empty_like(x)
        outside = native.forward(self.code, tables, tuple(x.shape), x, p, y)
        assert outside == int((~tables.grid.inside(x.float())).sum())
        return torch.where(tables.grid.inside(x.float()), y, 0.0)

    def backward(self, tables: Basis, x: Tensor, p: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        if self.code is None:
            dx, dp = plain.backward(tables, x, p, g, with_dp=True)
            assert dp is not None
            return dx, dp
        dx, dp = torch.empty_like(x), torch.empty_like(p)
        native.backward(self.code, tables, tuple(x.shape), x, p, g, dx, dp)
        return dx, dp

    def double_backward(
        self, tables: Basis, x: Tensor, p: Tensor, g: Tensor, a: Tensor, c: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        if self.code is None:
            dg, dx, dp = plain.double_backward(tables, x, p, g, a, c, with_dp=True)
            assert dp is not None
            return dg, dx, dp
        dg, dx, dp = torch.empty_like(x), torch.empty_like(x), torch.empty_like(p)
        native.double_backward(self.code, tables, tuple(x.shape), x, p, g, a, c, dg, dx, dp)
        return dg, dx, dp


@pytest.fixture(params=["native", "plain"])
def maps(request: pytest.FixtureRequest) -> Maps:
    return Maps(request.getfixturevalue("code") if request.param == "native" else None)


def spread(shape: tuple[int, ...]) -> Tensor:
    """Inputs on knots, between knots and outside the table."""
    x = 4 * torch.randn(shape)
    flat = x.view(-1)
    flat[::7] = torch.randint(-20, 20, flat[::7].shape) / 16
    flat[3::11] *= 20
    assert (x.abs() > 32).any()
    return x


def over_rows(cubics: Tensor, p: Tensor) -> Tensor:
    """`sum_k p_k c_k`: cubics (K, outer, rows, inner), p (rows, K)."""
    return torch.einsum("kori,rk->ori", cubics, p.double())


@pytest.mark.parametrize("count", [1, 13])
@every_shape
def test_the_gradient_of_the_weights_is_the_exact_adjoint_of_the_interpolant(
    maps: Maps, shape: tuple[int, int, int], count: int
) -> None:
    names = THIRTEEN[-count:]
    x, g, v = spread(shape), torch.randn(shape), torch.randn(shape[1], count)
    tables = basis(Grid(), names)
    y = maps.forward(tables, x, v)
    dx, dp = maps.backward(tables, x, v, g)
    cubics, slopes = candidates(names, x, 0), candidates(names, x, 1)
    # both maps equal the cubics, evaluated and summed in float64,
    assert ((y - over_rows(cubics, v)).abs() <= ROUNDING * over_rows(cubics.abs() + 0.1, v.abs())).all()
    assert ((dx - g * over_rows(slopes, v)).abs() <= ROUNDING * g.abs() * over_rows(slopes.abs() + 0.1, v.abs())).all()
    expected = torch.einsum("kori,ori->rk", cubics, g.double())
    size = torch.einsum("kori,ori->rk", cubics.abs() + 0.1, g.double().abs())
    assert ((dp - expected).abs() <= ROUNDING * size).all()
    # so one is the transpose of the other
    left, right = (g.double() * y).sum(), (dp.double() * v).sum()
    assert abs(float(left - right)) <= ROUNDING * float((size * v.abs()).sum())
    assert abs(float(right)) > 1e-2


@every_shape
def test_the_double_backward_equals_the_derivatives_of_the_backward(maps: Maps, shape: tuple[int, int, int]) -> None:
    x, g, a = spread(shape), torch.randn(shape), torch.randn(shape)
    p, c = torch.randn(shape[1], 13), torch.randn(shape[1], 13)
    f, f1, f2 = (candidates(THIRTEEN, x, order) for order in range(3))
    tables = basis(Grid(), THIRTEEN)
    for cot in (c, None):
        dg, dx, dp = maps.double_backward(tables, x, p, g, a, cot)
        by_c = torch.zeros_like(p) if cot is None else cot
        to_g = a * over_rows(f1, p) + over_rows(f, by_c)
        to_x = g * (a * over_rows(f2, p) + over_rows(f1, by_c))
        to_p = torch.einsum("kori,ori->rk", f1, (a * g).double())
        for found, expected in ((dg, to_g), (dx, to_x), (dp, to_p)):
            assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-7)])
@every_shape
def test_native_code_and_plain_torch_agree(
    code: native.Library, shape: tuple[int, int, int], dtype: torch.dtype, tolerance: float
) -> None:
    x, g, a = spread(shape).to(dtype), torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
    p, c = torch.randn(shape[1], 13), torch.randn(shape[1], 13)
    tables, one, other = basis(Grid(), THIRTEEN), Maps(code), Maps(None)
    pairs = [
        (one.forward(tables, x, p), other.forward(tables, x, p)),
        *zip(one.backward(tables, x, p, g), other.backward(tables, x, p, g), strict=True),
        *zip(one.double_backward(tables, x, p, g, a, c), other.double_backward(tables, x, p, g, a, c), strict=True),
        *zip(
            one.double_backward(tables, x, p, g, a, None), other.double_backward(tables, x, p, g, a, None), strict=True
        ),
    ]
    assert len(pairs) == 9, "one of forward, two of backward, three of each double backward"
    for found, expected in pairs:
        assert found.dtype == expected.dtype
        relative = 1e-6 if found.dtype == torch.float32 else tolerance
        error = (found.double() - expected.double()).abs()
        # absolute: terms may cancel, with the rounding of the largest; relative: an element may be rounded to bfloat16
        assert (error <= 1e-6 * expected.abs().max() + relative * expected.double().abs()).all()


def test_elements_outside_the_table_are_ignored(maps: Maps) -> None:
    tables, p = basis(Grid(), THIRTEEN), torch.ones(1, 13)
    x = torch.tensor([32.0, -32.0, 1e30, float("inf"), float("-inf"), float("nan"), 33.0, -40.0, 99.0]).view(1, 1, 9)
    nan = torch.full_like(x, float("nan"))
    assert torch.equal(maps.forward(tables, x, p), torch.zeros_like(x))
    for found in (*maps.backward(tables, x, p, nan), *maps.double_backward(tables, x, p, nan, nan, p)):
        assert torch.equal(found, torch.zeros_like(found))


@pytest.mark.parametrize(
    ("level", "shape"),
    [
        ("layer", (21,)),
        ("layer", (1030,)),
        ("channel", (160, 3, 7)),
        ("channel", (2, 3, 515)),
        ("channel", (3, 5, 3)),
        ("neuron", (2, 13)),
    ],
)
def test_an_element_outside_is_found_at_every_position(level: str, shape: tuple[int, ...]) -> None:
    bank = make_bank(("tanh", "silu"), layout(level, shape), "table")
    weights = torch.randn(*bank.layout.shape, 2)
    x, g, a = torch.randn(shape), torch.randn(shape), torch.randn(shape)
    for at in {*range(9), *range(x.numel() - 9, x.numel())}:
        one_outside = x.clone()
        one_outside.view(-1)[at] = 50.0
        found = double_backward(bank, one_outside, weights, g, a)
        true = double_backward(exact(bank), one_outside.double(), weights.double(), g.double(), a.double())
        for one, other in zip(found, true, strict=True):
            assert float((one - other).abs().max()) <= 1e-5 * float(other.abs().max())


# ---- long sums, threads, determinism --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 1.0, -2.7971909, 0.8066937, -0.5868578])
def test_millions_of_equal_elements_are_summed_to_more_than_five_digits(value: float) -> None:
    count = 4_000_000
    weights = torch.full((13,), 0.1, requires_grad=True)
    y = make_bank(THIRTEEN, Layout(), "table")(torch.full((count,), value), weights)
    (found,) = torch.autograd.grad(y, weights, torch.ones(()).expand(count))
    expected = count * candidates(THIRTEEN, torch.tensor([value]), 0)[:, 0]
    assert ((found - expected).abs() <= 1e-6 * expected.abs().clamp_min(1e-3 * count)).all()


@every_level
def test_the_number_of_threads_changes_only_the_rounding_of_sums(
    code: native.Library, one_thread: None, level: str
) -> None:
    shape = (40, 6, 30, 30)
    x, g, a = 3 * torch.randn(shape), torch.randn(shape), torch.randn(shape)
    x[::7] *= 20
    bank = make_bank(THIRTEEN, layout(level, shape), "table")
    weights = torch.randn(*bank.layout.shape, 13)
    one_threaded = double_backward(bank, x, weights, g, a)
    torch.set_num_threads(2)
    assert code.threads(x.numel()) == 2
    two_threaded = double_backward(bank, x, weights, g, a)
    for one, two in zip(one_threaded, two_threaded, strict=True):
        if one.shape == x.shape:
            assert torch.equal(one, two)
        else:
            assert float((one - two).abs().max()) <= 1e-6 * float(one.abs().max())
    assert all(
        torch.equal(one, two) for one, two in zip(two_threaded, double_backward(bank, x, weights, g, a), strict=True)
    )


@every_level
@every_kernel
def test_the_same_call_gives_the_same_bits(one_thread: None, kernel: str, level: str) -> None:
    shape = (4, 6, 9, 9)
    x, g, a = 30 * torch.randn(shape), torch.randn(shape), torch.randn(shape)
    bank = make_bank(MIXED, layout(level, shape), kernel)
    weights = torch.randn(*bank.layout.shape, len(MIXED))
    first, again = double_backward(bank, x, weights, g, a), double_backward(bank, x, weights, g, a)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))


# ---- what is saved for the backward pass ----------------------------------------------------------------------------


def saved_by(bank: Bank, x: Tensor, weights: Tensor) -> list[Tensor]:
    saved: list[Tensor] = []

    def save(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with saved_tensors_hooks(save, lambda tensor: tensor):
        bank(x, weights)
    return saved


@pytest.mark.parametrize("form", ["contiguous", "channels_last", "sliced"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_level
@pytest.mark.parametrize("kernel", ["auto", "table", "fused"])
def test_only_the_input_and_the_weights_are_saved(kernel: str, level: str, dtype: torch.dtype, form: str) -> None:
    x = {
        "contiguous": lambda: torch.randn(8, 6, 9, 9),
        "channels_last": lambda: torch.randn(8, 6, 9, 9).to(memory_format=torch.channels_last),
        "sliced": lambda: torch.randn(9, 6, 9, 9)[1:, :, ::2],
    }[form]()
    x = x.to(dtype).requires_grad_()
    bank = make_bank(THIRTEEN, layout(level, x.shape), kernel)
    weights = torch.rand(*bank.layout.shape, 13, requires_grad=True)
    saved = saved_by(bank, x, weights)
    assert [tensor.data_ptr() for tensor in saved] == [x.data_ptr(), weights.data_ptr()]
    assert saved[0].nbytes == x.numel() * (4 if dtype == torch.float32 else 2)
    assert saved[1].nbytes == weights.numel() * 4


def test_the_reference_saves_a_tensor_per_candidate() -> None:
    x = torch.randn(1000, requires_grad=True)
    weights = torch.rand(13, requires_grad=True)
    saved = saved_by(make_bank(THIRTEEN, Layout(), "reference"), x, weights)
    assert len({tensor.data_ptr() for tensor in saved if tensor.numel() == x.numel()}) > 10


@pytest.mark.parametrize("kernel", ["auto", "table", "fused"])
def test_a_partly_tabulated_bank_saves_the_input_once(kernel: str) -> None:
    x = torch.randn(8, 300, requires_grad=True)
    names = tuple(name for name in MIXED if name != "original")
    saved = saved_by(make_bank(names, Layout(), kernel), x, torch.rand(len(names), requires_grad=True))
    assert {tensor.data_ptr() for tensor in saved if tensor.numel() >= x.numel()} == {x.data_ptr()}


@every_kernel
def test_nothing_is_saved_if_no_gradient_is_needed(kernel: str) -> None:
    assert saved_by(make_bank(THIRTEEN, Layout(), kernel), torch.randn(8, 300), torch.rand(13)) == []
    with torch.no_grad():
        x = torch.randn(8, 300, requires_grad=True)
        assert saved_by(make_bank(THIRTEEN, Layout(), kernel), x, torch.rand(13)) == []
