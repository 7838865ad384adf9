"""While a site's own function has weight one, the reference kernel computes it bit for bit: value, gradient, dtype."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasact.errors import MixtureError
from nasact.mixture import Mixture
from nasact.supernet import Supernet, derive, relax

SPACE = ["relu", "tanh", "snake", "squared_relu", "identity", "sin"]
INF, NAN = float("inf"), float("nan")


class Promotes(nn.Module):
    """A handwritten GELU, equal to the catalogue's up to rounding, that computes in float64."""

    def forward(self, x: Tensor) -> Tensor:
        wide = x.double()
        return 0.5 * wide * (1 + torch.tanh(0.7978845608028654 * (wide + 0.044715 * wide**3)))


FUNCTIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "fixed_slope": lambda: nn.LeakyReLU(0.3),
    "trained_slope": nn.PReLU,
}


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


class ExtendedTensor(Tensor):
    """A subclass of torch's tensor."""


def autocast() -> Any:
    return torch.autocast("cpu", torch.bfloat16)


# input, a context in which model and supernet run, and the dtype of the model
SITUATIONS: dict[str, tuple[Tensor, Callable[[], Any], torch.dtype]] = {
    "float32": (normal(3, 4), contextlib.nullcontext, torch.float32),
    "float64": (normal(3, 4, dtype=torch.float64), contextlib.nullcontext, torch.float64),
    "bfloat16": (normal(3, 4, dtype=torch.bfloat16), contextlib.nullcontext, torch.bfloat16),
    "float16": (normal(3, 4, dtype=torch.float16), contextlib.nullcontext, torch.float16),
    "autocast": (normal(3, 4), autocast, torch.float32),
    "autocast_bfloat16": (normal(3, 4, dtype=torch.bfloat16), autocast, torch.float32),
    "channels_last": (normal(2, 4, 3, 5).to(memory_format=torch.channels_last), contextlib.nullcontext, torch.float32),
    "transposed": (normal(2, 4, 3, 5).transpose(1, 3), contextlib.nullcontext, torch.float32),
    "every_second": (normal(3, 8)[:, ::2], contextlib.nullcontext, torch.float32),
    "expanded": (normal(3, 1).expand(3, 4), contextlib.nullcontext, torch.float32),
    "empty": (normal(0, 4), contextlib.nullcontext, torch.float32),
    "0-dim": (normal(), contextlib.nullcontext, torch.float32),
    "subclass": (normal(3, 4).as_subclass(ExtendedTensor), contextlib.nullcontext, torch.float32),
    "nan": (torch.tensor([[NAN, 1.0, -1.0, 0.0]]), contextlib.nullcontext, torch.float32),
    "inf": (torch.tensor([[INF, 1.0, -1.0, 0.0]]), contextlib.nullcontext, torch.float32),
    "-inf": (torch.tensor([[-INF, 1.0, -1.0, 0.0]]), contextlib.nullcontext, torch.float32),
    "-0": (torch.tensor([[-0.0, 0.0, -1e-45, 1e-45]]), contextlib.nullcontext, torch.float32),
    "overflow": (torch.tensor([[1e30, -1e30, 3e38, -3e38]]), contextlib.nullcontext, torch.float32),
    "overflow_float16": (
        torch.tensor([[300.0, -300.0, 6e4, -6e4]], dtype=torch.float16), contextlib.nullcontext, torch.float16,
    ),
    "no_grad": (normal(3, 4), torch.no_grad, torch.float32),
    "inference_mode": (normal(3, 4), torch.inference_mode, torch.float32),
}  # fmt: skip
MIXED = {"float64_in_float32": (torch.float64, torch.float32), "float32_in_float64": (torch.float32, torch.float64)}


class Net(nn.Module):
    def __init__(self, act: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.act, self.other = act.to(dtype), nn.Linear(2, 2, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(x)
        return y


def start(model: nn.Module, **options: Any) -> Supernet:
    return relax(model, SPACE, normaliser="affine", init="original", kernel="reference", **options)


def run(net: nn.Module, x: Tensor, context: Callable[[], Any]) -> tuple[Tensor, Tensor | None]:
    """The output and the gradient of the input."""
    x = x.detach()
    if x.dtype.is_floating_point or x.dtype.is_complex:
        x.requires_grad_()
    with context():
        y = net(x)
    gradient = None
    if y.requires_grad and x.requires_grad and (y.dtype.is_floating_point or y.dtype.is_complex):
        (gradient,) = torch.autograd.grad(y, x, torch.ones_like(y))
    return y.detach(), gradient


def assert_same_bits(found: Tensor | None, expected: Tensor | None) -> None:
    assert (found is None) == (expected is None)
    if found is None or expected is None:
        return
    assert type(found) is type(expected)
    assert (found.dtype, found.shape, found.stride()) == (expected.dtype, expected.shape, expected.stride())
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(torch.nan_to_num(found), torch.nan_to_num(expected))
    if not found.dtype.is_complex:
        assert torch.equal(torch.signbit(found) | found.isnan(), torch.signbit(expected) | expected.isnan())


def test_situations_are_found() -> None:
    assert len(SITUATIONS) >= 21
    assert len(FUNCTIONS) >= 4


@pytest.mark.parametrize("name", SITUATIONS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_supernet_starts_as_the_function(function: str, name: str) -> None:
    x, context, dtype = SITUATIONS[name]
    model = Net(FUNCTIONS[function](), dtype)
    for found, expected in zip(run(start(model), x, context), run(model, x, context), strict=True):
        assert_same_bits(found, expected)


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize("function", [nn.ReLU, nn.GELU, nn.Tanh, lambda: nn.LeakyReLU(0.3)])
def test_an_input_of_another_dtype_than_the_model_keeps_its_dtype(function: Any, name: str) -> None:
    of_input, of_model = MIXED[name]
    model, x = Net(function(), of_model), normal(3, 4, dtype=of_input)
    for found, expected in zip(
        run(start(model), x, contextlib.nullcontext), run(model, x, contextlib.nullcontext), strict=True
    ):
        assert_same_bits(found, expected)


@pytest.mark.parametrize("level", ["channel", "neuron"])
@pytest.mark.parametrize("name", ["float32", "channels_last", "nan", "inf", "overflow", "autocast"])
def test_the_supernet_starts_as_the_function_at_every_level(level: str, name: str) -> None:
    x, context, dtype = SITUATIONS[name]
    for function in FUNCTIONS.values():
        model = Net(function(), dtype)
        supernet = start(model, level=level, example_input=x)
        for found, expected in zip(run(supernet, x, context), run(model, x, context), strict=True):
            assert_same_bits(found, expected)


def test_a_handwritten_function_that_the_catalogue_has_up_to_rounding_is_computed_by_the_model_s_own_code() -> None:
    model, x = Net(Promotes(), torch.float32), normal(30, 4)
    supernet = relax(model, ["relu", "gelu_tanh"], normaliser="affine", init="original", kernel="reference")
    (mixture,) = supernet.mixtures().values()
    assert mixture.names == ("relu", "gelu_tanh")
    for found, expected in zip(
        run(supernet, x, contextlib.nullcontext), run(model, x, contextlib.nullcontext), strict=True
    ):
        assert_same_bits(found, expected)
    assert not torch.equal(F.gelu(x, approximate="tanh").double(), model(x)), "the catalogue's formula rounds otherwise"
    assert torch.equal(supernet.derive(derive(supernet))(x), model(x))


@pytest.mark.parametrize(
    ("function", "x"),
    [
        (nn.ReLU, torch.arange(-3, 3).view(1, 6)),
        (nn.ReLU, torch.arange(-3, 3, dtype=torch.int8)),
        (nn.ReLU6, torch.arange(-3, 9)),
        (nn.Tanh, torch.arange(-3, 3)),
        (nn.Tanh, torch.tensor([True, False])),
        (nn.Tanh, torch.randn(3, 4, dtype=torch.complex64)),
    ],
)
def test_inputs_that_are_not_floating_point_are_computed_by_the_only_function(function: Any, x: Tensor) -> None:
    model = Net(function(), torch.float32)
    supernet = start(model)
    found, expected = supernet(x), model(x)
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)
    (mixture,) = supernet.mixtures().values()
    with torch.no_grad():
        mixture.alpha += 0.1 * torch.rand_like(mixture.alpha)
    with pytest.raises(MixtureError, match=r"site 'act': a mixture needs a floating point input, but got torch\."):
        supernet(x)


def test_a_trained_mixture_has_the_dtype_of_the_model_s_own_function() -> None:
    model = Net(nn.PReLU(), torch.float32)
    supernet = start(model)
    (mixture,) = supernet.mixtures().values()
    assert isinstance(mixture, Mixture)
    with torch.no_grad():
        mixture.alpha += 0.1 * torch.rand_like(mixture.alpha)
    with autocast():
        assert model(normal(3, 4)).dtype == supernet(normal(3, 4)).dtype == torch.bfloat16
    supernet(normal(3, 4)).sum().backward()
    assert mixture.alpha.grad is not None
