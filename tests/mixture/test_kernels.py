"""Every registered kernel computes what the reference does: values, gradients, shapes, memory formats, dtypes.

The oracle is autograd of `mix` in float64. The table's error bounds, and difficult inputs, are in test_table_bounds.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from mixture_oracles import (
    LEVELS,
    MIXED,
    TABULABLE,
    THIRTEEN,
    assert_close,
    exact,
    gradients,
    layout,
    make_bank,
    truth,
)
from torch import Tensor

import nasact
from nasact.activations.candidate import CANDIDATES
from nasact.errors import MixtureError
from nasact.mixture import KERNELS, NORMALISERS, Bank, Kernel, Layout, Mixture, Table
from nasact.mixture.table import native

DTYPES = {torch.float32: 1e-5, torch.bfloat16: 4e-2, torch.float16: 5e-3, torch.float64: 1e-12}
"""Tolerances, in units of the largest entry. In half precision the reference itself rounds after every candidate."""

supported = [
    pytest.param(kernel, dtype, id=f"{kernel}-{str(dtype).removeprefix('torch.')}")
    for kernel in KERNELS.names()
    for dtype in DTYPES
    if not (kernel == "table" and dtype == torch.float64)
]
every_kernel = pytest.mark.parametrize("kernel", KERNELS.names())
every_level = pytest.mark.parametrize("level", LEVELS)

FORMATS: dict[str, Callable[[], Tensor]] = {
    "contiguous": lambda: torch.randn(4, 3, 6, 5),
    "channels_last": lambda: torch.randn(4, 3, 6, 5).to(memory_format=torch.channels_last),
    "transposed": lambda: torch.randn(5, 6, 3, 4).permute(3, 2, 1, 0),
    "batch_inside": lambda: torch.randn(3, 4, 6, 5).transpose(0, 1),
    "expanded": lambda: torch.randn(1, 3, 6, 1).expand(4, 3, 6, 5),
    "strided": lambda: torch.randn(4, 3, 12, 10)[:, :, ::2, ::2],
    "sliced": lambda: torch.randn(6, 5, 8, 5)[1:5, 1:4, 2:],
}
DENSE = ("contiguous", "channels_last", "transposed", "batch_inside")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_kernels_levels_normalisers_and_memory_formats_are_found() -> None:
    assert {"auto", "table", "fused", "reference"} <= {*KERNELS.names()}
    assert len(supported) >= 15
    assert len(LEVELS) == 3
    assert len(NORMALISERS.names()) >= 11
    assert len(FORMATS) == 7


# ---- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normaliser", NORMALISERS.names())
@every_level
@pytest.mark.parametrize(("kernel", "dtype"), supported)
def test_output_and_gradients_equal_the_reference_in_float64(
    kernel: str, dtype: torch.dtype, level: str, normaliser: str
) -> None:
    x, g = (3 * torch.randn(4, 3, 5)).to(dtype), torch.randn(4, 3, 5).to(dtype)
    bank = make_bank(("relu", "tanh", "sin", "gelu", "identity"), layout(level, x.shape), kernel, dtype)
    op = Mixture(bank, normaliser=normaliser, dtype=dtype).eval()
    true = Mixture(exact(bank), normaliser=normaliser, dtype=torch.float64).eval()
    with torch.no_grad():
        op.alpha.copy_(torch.rand_like(op.alpha) + 0.1)
        op.project_()
        true.alpha.copy_(op.alpha)
    found = _gradients_of_a_mixture(op, x, g)
    assert found["y"].dtype == found["x"].dtype == dtype
    assert found["alpha"].dtype == op.alpha.dtype
    assert_close(found, _gradients_of_a_mixture(true, x.double(), g.double()), DTYPES[dtype])


def _gradients_of_a_mixture(op: Mixture, x: Tensor, g: Tensor) -> dict[str, Tensor]:
    x = x.requires_grad_()
    y = op(x)
    return dict(zip(("y", "x", "alpha"), (y.detach(), *torch.autograd.grad(y, (x, op.alpha), g)), strict=True))


@every_kernel
def test_weights_that_are_drawn_in_training_are_mixed_and_have_a_gradient(kernel: str) -> None:
    x, g = torch.randn(6, 3), torch.randn(6, 3)
    op = Mixture(make_bank(THIRTEEN, Layout(), kernel), normaliser="gumbel").train()
    torch.manual_seed(7)
    found = _gradients_of_a_mixture(op, x, g)
    torch.manual_seed(7)
    p = op.normaliser.weights(op.alpha, op.temperature, True)
    true = truth(op.bank, x, p, g)
    (true["alpha"],) = torch.autograd.grad(p, op.alpha, true.pop("weights").float())
    assert_close(found, true, 1e-5)


@every_level
@pytest.mark.parametrize(("kernel", "dtype"), supported)
def test_a_partly_tabulated_bank_has_every_gradient_and_those_of_its_betas(
    kernel: str, dtype: torch.dtype, level: str
) -> None:
    x, g = (2 * torch.randn(4, 3, 5)).to(dtype), torch.randn(4, 3, 5).to(dtype)
    bank = make_bank(MIXED, layout(level, x.shape), kernel, dtype)
    weights = torch.randn(*bank.layout.shape, len(MIXED), dtype=torch.float64).to(bank.betas["snake_a"].dtype)
    found = gradients(bank, x, weights, g)
    assert set(found) == {"y", "x", "weights", "betas.prelu_slope", "betas.snake_a", "original.weight"}
    assert_close(found, truth(bank, x, weights, g), DTYPES[dtype])


@pytest.mark.parametrize("kernel", ["auto", "fused", "reference", Table(knots=8193)], ids=str)
def test_a_steep_function_is_computed_by_its_formula_or_on_a_finer_table(kernel: str | Kernel) -> None:
    x, g = 0.3 * torch.randn(700, 3), torch.randn(700, 3)
    bank = make_bank(("relu", "signed_cbrt", "tanh"), layout("channel", x.shape), kernel)
    weights = torch.randn(3, 3)
    assert_close(gradients(bank, x, weights, g), truth(bank, x, weights, g), 1e-5)


@every_level
@every_kernel
def test_an_input_of_many_blocks_is_computed_like_a_small_one(kernel: str, level: str) -> None:
    x, g = 2 * torch.randn(9, 4, 64, 64), torch.randn(9, 4, 64, 64)
    assert x.numel() > 1 << 17
    bank = make_bank(MIXED, layout(level, x.shape), kernel)
    weights = torch.randn(*bank.layout.shape, len(MIXED))
    assert_close(gradients(bank, x, weights, g), truth(bank, x, weights, g), 1e-5)


@pytest.mark.parametrize("dim", [0, 2, -1, -3])
@pytest.mark.parametrize("level", ["layer", "channel"])
@every_kernel
def test_channels_may_be_in_any_dimension(kernel: str, level: str, dim: int) -> None:
    x, g = torch.randn(40, 60, 70), torch.randn(40, 60, 70)
    where = Layout(level=level, shape=(x.shape[dim],) if level == "channel" else (), channel_dim=dim)
    bank = make_bank(("relu", "gelu", "prelu", "softmax"), where, kernel)
    weights = torch.randn(*where.shape, 4)
    assert_close(gradients(bank, x, weights, g), truth(bank, x, weights, g), 1e-5)


@pytest.mark.parametrize("count", [1, 2, 13, 20, len(TABULABLE)])
@pytest.mark.parametrize("shape", [(3, 6), (2000, 6), (5, 40, 7)], ids=str)
@pytest.mark.parametrize("level", ["layer", "channel", "neuron"])
@pytest.mark.parametrize("kernel", ["auto", "table"])
def test_any_number_of_candidates_works_for_few_and_many_elements_per_row(
    kernel: str, level: str, shape: tuple[int, ...], count: int
) -> None:
    assert len(TABULABLE) >= 33
    names = TABULABLE[:count]
    x, g = 2 * torch.randn(shape), torch.randn(shape)
    bank = make_bank(names, layout(level, shape), kernel)
    if isinstance(native.load(), native.Library):
        assert bank.choose(x.device, x.dtype).kernel == "table"
    weights = torch.randn(*bank.layout.shape, count)
    found, true = gradients(bank, x, weights, g), truth(bank, x, weights, g)
    assert_close(found, true, 1e-5)


@every_level
@every_kernel
def test_far_outside_the_table_the_functions_themselves_are_computed(kernel: str, level: str) -> None:
    x = torch.randn(6, 3, 5) * torch.logspace(-3, 4, 5)
    g = torch.randn(6, 3, 5)
    bank = make_bank(THIRTEEN, layout(level, x.shape), kernel)
    weights = torch.rand(*bank.layout.shape, 13)
    assert (x.abs() > 32).any()
    assert_close(gradients(bank, x, weights, g), truth(bank, x, weights, g), 1e-5)


# ---- memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
@every_level
@every_kernel
def test_any_memory_format_of_the_input_gives_the_same_numbers(kernel: str, level: str, form: str) -> None:
    x = FORMATS[form]()
    assert x.shape == (4, 3, 6, 5)
    g = torch.randn(x.shape)
    bank = make_bank(MIXED, layout(level, x.shape), kernel)
    weights = torch.randn(*bank.layout.shape, len(MIXED))
    found = gradients(bank, x, weights, g)
    assert_close(found, truth(bank, x, weights, g), 1e-5)


@pytest.mark.parametrize("form", DENSE)
@every_level
@every_kernel
def test_the_output_has_the_memory_format_of_the_input(kernel: str, level: str, form: str) -> None:
    x = FORMATS[form]()
    bank = make_bank(THIRTEEN, layout(level, x.shape), kernel)
    for with_gradient in (False, True):
        y = bank(x.detach().requires_grad_(with_gradient), torch.rand(*bank.layout.shape, 13))
        assert (y.shape, y.stride()) == (x.shape, x.stride())


@pytest.mark.parametrize("form", FORMATS)
@every_level
@pytest.mark.parametrize("kernel", ["auto", "fused"])
def test_the_incoming_gradient_may_have_another_memory_format(kernel: str, level: str, form: str) -> None:
    x = FORMATS[form]()
    bank = make_bank(("relu", "silu", "prelu"), layout(level, x.shape), kernel)
    weights = torch.randn(*bank.layout.shape, 3)
    for g in (*(make() for make in FORMATS.values()), torch.ones(()).expand(x.shape)):
        assert_close(gradients(bank, x, weights, g), truth(bank, x, weights, g), 1e-5)


@every_kernel
def test_weights_may_be_transposed_or_expanded(kernel: str) -> None:
    x, g = torch.randn(5, 4, 3), torch.randn(5, 4, 3)
    bank = make_bank(THIRTEEN, layout("channel", x.shape), kernel)
    weights = torch.randn(13, 4).t()
    assert_close(gradients(bank, x, weights, g), truth(bank, x, weights, g), 1e-5)
    shared = torch.randn(13)
    assert_close(gradients(bank, x, shared.expand(4, 13), g), truth(bank, x, shared.expand(4, 13), g), 1e-5)


# ---- sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "shape", "units"),
    [
        ("layer", (), ()),
        ("layer", (1,), ()),
        ("layer", (9,), ()),
        ("neuron", (9,), ()),
        ("channel", (1, 3), (3,)),
        ("channel", (7, 1, 3), (1,)),
        ("neuron", (1, 3), (3,)),
        ("neuron", (1200, 1), (1,)),
        ("layer", (0,), ()),
        ("layer", (0, 3), ()),
        ("channel", (0, 3, 4), (3,)),
        ("channel", (2, 3, 0), (3,)),
        ("channel", (2, 0), (0,)),
        ("neuron", (0, 3, 4), (3, 4)),
        ("neuron", (2, 3, 0), (3, 0)),
    ],
)
@pytest.mark.parametrize(("kernel", "dtype"), supported)
def test_small_and_empty_inputs_have_their_gradients(
    kernel: str, dtype: torch.dtype, level: str, shape: tuple[int, ...], units: tuple[int, ...]
) -> None:
    x, g = torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
    bank = make_bank(("relu", "tanh", "prelu", "softmax"), Layout(level=level, shape=units), kernel, dtype)
    weights = torch.rand(*units, 4, dtype=torch.float64).to(bank.betas["prelu_slope"].dtype)
    found = gradients(bank, x, weights, g)
    assert (found["y"].shape, found["y"].dtype) == (x.shape, dtype)
    assert_close(found, truth(bank, x, weights, g), DTYPES[dtype])


@every_kernel
def test_an_input_whose_shape_does_not_fit_the_level_is_refused(kernel: str) -> None:
    bank = Bank(("relu", "tanh"), Layout(level="neuron"), kernel=kernel, where="site 'act'")
    with pytest.raises(
        MixtureError, match=r"^site 'act': level 'neuron' needs .* at least 1 dimension, .* shape \(\)$"
    ):
        bank(torch.tensor(1.0), torch.ones(2))
    bank = Bank(("relu", "tanh"), Layout(level="channel", shape=(3,), channel_dim=2), kernel=kernel, where="site 'act'")
    with pytest.raises(MixtureError, match=r"^site 'act': level 'channel' needs .* 3 dimensions, .* shape \(2, 3\)$"):
        bank(torch.randn(2, 3), torch.ones(3, 2))


def test_a_requested_table_refuses_float64() -> None:
    bank = Bank(("relu", "tanh"), Layout(), kernel="table", where="site 'act'")
    with pytest.raises(MixtureError, match=r"^site 'act': kernel 'table' holds float32 and cannot compute float64"):
        bank(torch.randn(3, dtype=torch.float64), torch.ones(2))


# ---- which gradients are computed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [THIRTEEN, MIXED], ids=["tabulated", "mixed"])
@every_level
@every_kernel
def test_only_requested_gradients_are_computed_with_the_same_values(
    kernel: str, level: str, names: tuple[str, ...]
) -> None:
    x, g = 2 * torch.randn(4, 3, 5), torch.randn(4, 3, 5)
    bank = make_bank(names, layout(level, x.shape), kernel)
    weights = torch.randn(*bank.layout.shape, len(names))
    both = gradients(bank, x, weights, g)
    bank.requires_grad_(False)
    for for_x in (False, True):
        for for_weights in (False, True):
            xs, ps = x.clone().requires_grad_(for_x), weights.clone().requires_grad_(for_weights)
            y = bank(xs, ps)
            assert torch.equal(y, both["y"])
            assert y.requires_grad == (for_x or for_weights)
            if y.requires_grad:
                y.backward(g)
            for leaf, needed, name in ((xs, for_x, "x"), (ps, for_weights, "weights")):
                assert (leaf.grad is not None) == needed
                if leaf.grad is not None:
                    torch.testing.assert_close(leaf.grad, both[name], rtol=1e-6, atol=1e-6)


@every_kernel
def test_betas_can_be_trained_without_x_and_weights(kernel: str) -> None:
    x, g = torch.randn(4, 3, 5), torch.randn(4, 3, 5)
    bank = make_bank(MIXED, layout("channel", x.shape), kernel)
    weights = torch.randn(3, len(MIXED))
    true = truth(bank, x, weights, g)
    bank(x, weights).backward(g)
    for name, beta in bank.named_parameters():
        assert beta.grad is not None
        torch.testing.assert_close(beta.grad.double(), true[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("names", [("zero",), ("zero", "one"), ("zero", "tanh")], ids=str)
@every_kernel
def test_functions_that_do_not_depend_on_x_may_be_candidates(kernel: str, names: tuple[str, ...]) -> None:
    with CANDIDATES.temporary():
        for name, function in (("zero", torch.zeros_like), ("one", torch.ones_like)):
            nasact.register_function(name, function)
        _check_constants(kernel, names)


def _check_constants(kernel: str, names: tuple[str, ...]) -> None:
    x = torch.tensor([1.0, -2.0, 50.0], requires_grad=True)
    weights = torch.full((len(names),), 2.0, requires_grad=True)
    y = make_bank(names, Layout(), kernel)(x, weights)
    dx, dweights = torch.autograd.grad(
        y, (x, weights), torch.ones(3), create_graph=True, materialize_grads=True, allow_unused=True
    )
    tanh = torch.tanh(x.detach())
    slope = 1 - tanh**2 if "tanh" in names else torch.zeros(3)
    sums = {"zero": 0.0, "one": 3.0, "tanh": float(tanh.sum())}
    torch.testing.assert_close(y, 2 * sum(f * (n in names) for n, f in (("one", torch.ones(3)), ("tanh", tanh))))
    torch.testing.assert_close(dx, 2 * slope)
    torch.testing.assert_close(dweights, torch.tensor([sums[name] for name in names]))
    if dx.requires_grad:
        (curvature,) = torch.autograd.grad(dx.sum(), x, materialize_grads=True, allow_unused=True)
        torch.testing.assert_close(curvature, -4 * tanh * slope)
