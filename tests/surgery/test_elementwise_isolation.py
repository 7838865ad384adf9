"""Finding out what a callable computes changes nothing, and does not depend on its surroundings."""

from __future__ import annotations

import functools
import random
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from activation_spellings import NewGELU
from numpy.random import mtrand
from other_callables import RANDOM, LayerDrop, Stateful
from torch import Tensor, nn
from torch.nn import functional as F

import nasact
from nasact.activations.candidate import CANDIDATES
from nasact.surgery.elementwise import Recognition, recognise
from nasact.surgery.sample_points import sample_points

Function = Callable[[Tensor], Tensor]


class SquareRoot(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sqrt(x)


def activation(name: str) -> Recognition:
    return Recognition("activation", name, "")


# --- what does not change


@pytest.mark.parametrize(
    "function",
    [F.gelu, nn.Dropout(0.5), LayerDrop(), RANDOM["noise of numpy"], F.dropout],
    ids=["gelu", "dropout", "layer drop", "numpy", "functional dropout"],
)
def test_random_generators_are_restored(function: Function) -> None:
    mtrand.standard_normal()  # numpy keeps the second one of two normal numbers

    def states() -> tuple[object, ...]:
        numpy = mtrand.get_state(legacy=False)
        return (
            random.getstate(),
            numpy["state"]["key"].tolist(),
            numpy["state"]["pos"],
            numpy["has_gauss"],
            numpy["gauss"],
            torch.get_rng_state().tolist(),
        )

    before = states()
    recognise(function)
    assert states() == before


@pytest.mark.parametrize(
    "surroundings",
    [
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.device("meta"),
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        torch.autograd.set_detect_anomaly,
    ],
    ids=["no_grad", "inference_mode", "meta device", "autocast", "anomaly detection"],
)
def test_the_surroundings_have_no_influence_and_are_kept(surroundings: Any) -> None:
    def maximum(x: Tensor) -> Tensor:
        return torch.maximum(x, torch.zeros(()))

    def by_a_product(x: Tensor) -> Tensor:
        return F.gelu((x.float().unsqueeze(-1) @ torch.ones(1, 1)).squeeze(-1))

    arguments = (True,) if surroundings is torch.autograd.set_detect_anomaly else ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anomaly detection warns that it is slow
        context = surroundings(*arguments)
    with context:

        def modes() -> tuple[object, ...]:
            return (
                torch.is_grad_enabled(),
                torch.is_inference_mode_enabled(),
                torch.get_default_device(),
                torch.get_default_dtype(),
                torch.is_autocast_enabled("cpu"),
                torch.is_anomaly_enabled(),
                torch.zeros(1).device,
            )

        before = modes()
        assert recognise(maximum) == activation("relu")
        assert recognise(SquareRoot()) == activation("original")
        assert recognise(by_a_product) == activation("gelu")
        assert recognise(nn.Sequential(nn.Softplus(), nn.Tanh())) == activation("original")
        assert modes() == before


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_the_default_dtype_has_no_influence_and_is_kept(dtype: torch.dtype) -> None:
    sample_points.cache_clear()
    torch.set_default_dtype(dtype)
    try:
        assert recognise(NewGELU()) == activation("gelu_tanh")
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_tables_may_be_made_in_inference_mode() -> None:
    """The first call makes them. Tensors that are made in inference mode could not be used outside of it."""
    sample_points.cache_clear()
    with CANDIDATES.temporary(), torch.inference_mode(), torch.device("meta"):
        nasact.register_function("relu_cubed", lambda x: torch.relu(x) ** 3)
        assert recognise(F.gelu) == activation("gelu")
    assert recognise(F.gelu) == activation("gelu")
    assert sample_points().points.device.type == "cpu"
    assert not sample_points().points.is_inference()


def test_warnings_and_output_do_not_get_out(capfd: pytest.CaptureFixture[str]) -> None:
    def noisy(x: Tensor) -> Tensor:
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        sys.stdout.write("x is a tensor\n")
        sys.stderr.write("careful\n")
        return F.relu(x)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert recognise(noisy) == activation("relu")
        assert recognise(functools.partial(F.softmax)).kind == "not elementwise"  # torch warns of the implicit dim
    assert capfd.readouterr() == ("", "")


def test_a_module_keeps_its_mode_and_state_and_its_hooks_are_not_called() -> None:
    module, seen = Stateful(), []
    module.eval()
    module.register_forward_hook(lambda module, args, output: seen.append(output))
    before = dict(vars(module))
    recognise(module)
    recognise(module.forward)
    assert vars(module) == before
    assert (module.calls, module.training, seen) == (0, False, [])


def test_a_callable_object_keeps_its_state() -> None:
    class Counting:
        calls = 0

        def __call__(self, x: Tensor) -> Tensor:
            self.calls += 1
            return torch.tanh(x)

    counting = Counting()
    assert recognise(counting) == activation("tanh")
    assert recognise(counting.__call__) == activation("tanh")
    assert counting.calls == 0


def test_a_function_is_run_few_times_on_inputs_of_its_own() -> None:
    inputs: list[Tensor] = []

    def function(x: Tensor) -> Tensor:
        inputs.append(x)
        return x.relu_()

    assert recognise(function) == activation("relu")
    assert 10 <= len(inputs) <= 20
    assert len({x.data_ptr() for x in inputs}) == len(inputs)
    dimensions = Counter(x.dim() for x in inputs)
    assert set(dimensions) == {1, 2, 3, 4}
    assert sum(x.numel() for x in inputs) < 40_000


def test_a_module_with_hooks_inside_is_not_run() -> None:
    module, seen = nn.Sequential(nn.Softplus(), nn.Tanh()), []
    handle = module[1].register_forward_hook(lambda module, args, output: seen.append(output))
    assert recognise(module) == Recognition("fails", "", "a module in it has hooks")
    assert recognise(module.forward) == Recognition("fails", "", "a module in it has hooks")
    assert seen == []
    handle.remove()
    assert recognise(module) == activation("original")


def test_a_module_that_overrides_call_is_called() -> None:
    class Doubled(nn.Tanh):
        def __call__(self, x: Tensor) -> Tensor:
            return 2 * self.forward(x)

    assert recognise(Doubled()) == activation("original")
    assert recognise(Doubled().forward) == activation("tanh")
