"""A callable is recognised as an activation by what it computes, however it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from activation_spellings import SPELLINGS, WITHOUT_A_NAME
from hypothesis import given, settings
from hypothesis import strategies as st
from other_callables import COUPLED, FAILS, LINEAR, NO_GRADIENT, OWN_GRADIENT, RANDOM, raises
from torch import Tensor
from torch.nn import functional as F

import nasact
from nasact import activations
from nasact.activations.candidate import CANDIDATES
from nasact.surgery.elementwise import Recognition, recognise

Function = Callable[[Tensor], Tensor]
NAMED = tuple(
    candidate
    for candidate in activations.candidates()
    if candidate.elementwise and not candidate.betas and candidate.name != "identity"
)
SAME_AS_AN_EARLIER_ONE = {"celu": "elu"}


def activation(name: str) -> Recognition:
    return Recognition("activation", name, "")


# --- activations


@pytest.mark.parametrize("precision", ["float64", "float32 inside", "returns float32", "only float32"])
@pytest.mark.parametrize("candidate", NAMED, ids=lambda candidate: candidate.name)
def test_every_function_of_the_catalogue_is_recognised_as_itself(
    candidate: activations.Candidate, precision: str
) -> None:
    def function(x: Tensor) -> Tensor:
        if precision == "only float32" and x.dtype != torch.float32:
            raise TypeError("expected float32")
        y: Tensor = candidate(x if precision == "float64" else x.float())
        return y if precision == "returns float32" else y.to(x.dtype)

    expected = SAME_AS_AN_EARLIER_ONE.get(candidate.name, candidate.name)
    assert recognise(function) == activation(expected)


def test_all_functions_but_those_with_parameters_and_softmax_and_identity_were_compared() -> None:
    assert len(NAMED) >= 34
    others = set(activations.names()) - {candidate.name for candidate in NAMED}
    assert {activations.get(name).name for name in others if not activations.get(name).betas} == {"identity", "softmax"}
    x = torch.linspace(-50, 50, 4001, dtype=torch.float64)
    for name, earlier in SAME_AS_AN_EARLIER_ONE.items():
        torch.testing.assert_close(activations.get(name)(x), activations.get(earlier)(x))


@pytest.mark.parametrize("candidate", [c for c in NAMED if c.module], ids=lambda candidate: candidate.name)
def test_torch_s_modules_are_recognised_in_either_mode(candidate: activations.Candidate) -> None:
    assert candidate.module is not None
    expected = SAME_AS_AN_EARLIER_ONE.get(candidate.name, candidate.name)
    assert recognise(candidate.module()) == activation(expected)
    assert recognise(candidate.module().eval()) == activation(expected)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_handwritten_functions_are_recognised(spelling: str) -> None:
    name, function = SPELLINGS[spelling]
    assert recognise(function) == activation(name)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_handwritten_functions_are_recognised_when_they_compute_in_float32(spelling: str) -> None:
    name, function = SPELLINGS[spelling]
    assert recognise(lambda x: function(x.float()).to(x.dtype)) == activation(name)


@pytest.mark.parametrize("case", WITHOUT_A_NAME)
def test_functions_that_the_catalogue_does_not_have_are_activations_without_a_name(case: str) -> None:
    assert recognise(WITHOUT_A_NAME[case]) == activation("original")


def test_the_cases_cover_the_catalogue_and_each_kind() -> None:
    assert len(SPELLINGS) >= 55
    assert len({name for name, _ in SPELLINGS.values()}) >= 22
    assert len(WITHOUT_A_NAME) >= 25
    others = (OWN_GRADIENT, NO_GRADIENT, LINEAR, RANDOM, COUPLED, FAILS)
    assert [len(cases) for cases in others] == [12, 3, 11, 11, 31, 24]


ROUNDED: dict[str, Function] = {
    "rounding larger than the value": lambda x: 3 * F.gelu(x.float() - 3),
    "constant but far from zero": lambda x: F.relu(x.float() / 6 - 8),
    "constant but near zero": lambda x: F.hardtanh(3 * x.float()),
    "curved at zero": lambda x: F.softsign(2 * x.float()),
    "steep at zero": lambda x: 3 * activations.get("signed_cbrt")(3 * x.float()),
}


@pytest.mark.parametrize("case", ROUNDED)
def test_rounding_to_float32_is_not_taken_for_a_gradient_of_its_own(case: str) -> None:
    assert recognise(ROUNDED[case]) == activation("original")


# --- everything else


@pytest.mark.parametrize("case", OWN_GRADIENT)
def test_a_gradient_that_is_not_that_of_the_values_is_found(case: str) -> None:
    reason = "its gradient is not that of its values (a straight-through estimator?)"
    assert recognise(OWN_GRADIENT[case]) == Recognition("own gradient", "", reason)


@pytest.mark.parametrize("case", NO_GRADIENT)
def test_a_gradient_that_is_cut_off_is_found(case: str) -> None:
    assert recognise(NO_GRADIENT[case]) == Recognition("own gradient", "", "no gradient flows through it")


@pytest.mark.parametrize("case", LINEAR)
def test_linear_functions_are_no_activations(case: str) -> None:
    assert recognise(LINEAR[case]) == Recognition("linear", "", "it is linear")


@pytest.mark.parametrize("function", [torch.zeros_like, lambda x: torch.full_like(x, 3.0), lambda x: 0 * x + 2])
def test_constants_are_no_activations(function: Function) -> None:
    assert recognise(function) == Recognition("linear", "", "it is constant")


@pytest.mark.parametrize("case", RANDOM)
def test_random_functions_are_no_activations(case: str) -> None:
    recognition = recognise(RANDOM[case])
    assert recognition.kind == "random"
    assert recognition.reason in ("it draws random numbers", "two runs on the same input differ")


@pytest.mark.parametrize("case", COUPLED)
def test_functions_of_more_than_one_element_are_no_activations(case: str) -> None:
    recognition = recognise(COUPLED[case])
    assert recognition.kind == "not elementwise"
    assert recognition.reason in (
        "its outputs depend on more than one element of its input",
        "it changes the shape of its input",
        "its values differ between train and eval mode",
    )
    assert (case == "different in train mode") == (
        recognition.reason == "its values differ between train and eval mode"
    )


@pytest.mark.parametrize("case", FAILS)
def test_a_function_that_cannot_be_run_says_why_in_one_line(case: str) -> None:
    function, reason = FAILS[case]
    recognition = recognise(function)
    assert (recognition.kind, recognition.function) == ("fails", "")
    assert recognition.reason.startswith(reason)
    assert "\n" not in recognition.reason
    assert len(recognition.reason) < 150


def test_an_interrupt_is_not_caught() -> None:
    with pytest.raises(KeyboardInterrupt):
        recognise(raises(KeyboardInterrupt()))
    assert torch.is_grad_enabled()


# --- properties


INNER = st.sampled_from(NAMED)
SCALES = st.sampled_from([1.0, 0.5, 2.0, -1.0, 1.702, 1 / 6, 3.0])
SHIFTS = st.sampled_from([0.0, 0.0, 1.0, -3.0, 0.5])
POINTS = torch.linspace(-29, 29, 6007, dtype=torch.float64)


@settings(max_examples=120, deadline=None)
@given(inner=INNER, outer=st.none() | INNER, scales=st.tuples(SCALES, SCALES), shifts=st.tuples(SHIFTS, SHIFTS))
def test_a_name_is_given_only_to_an_equal_function(
    inner: activations.Candidate,
    outer: activations.Candidate | None,
    scales: tuple[float, float],
    shifts: tuple[float, float],
) -> None:
    def function(x: Tensor) -> Tensor:
        y: Tensor = scales[1] * inner(scales[0] * x + shifts[0]) + shifts[1]
        return y if outer is None else outer(y)

    recognition = recognise(function)
    assert recognition.kind in ("activation", "linear"), recognition
    y = function(POINTS)
    if recognition.kind == "linear":
        assert recognition.reason == "it is constant" or (y.diff().diff().abs() < 1e-8).all()
    elif recognition.function != "original":
        torch.testing.assert_close(y, activations.get(recognition.function)(POINTS), rtol=3e-6, atol=3e-6)
    else:
        equal = [name.name for name in NAMED if torch.allclose(y, name(POINTS), rtol=1e-9, atol=1e-9)]
        assert equal == []


@settings(max_examples=80, deadline=None)
@given(inner=INNER, scale=SCALES, shift=SHIFTS, factor=SCALES)
def test_computing_in_float32_changes_no_recognition(
    inner: activations.Candidate, scale: float, shift: float, factor: float
) -> None:
    def function(x: Tensor) -> Tensor:
        return factor * inner(scale * x + shift)

    assert recognise(lambda x: function(x.float())) == recognise(function)


@settings(max_examples=80, deadline=None)
@given(candidate=INNER, slope=st.floats(-2, 3).filter(lambda slope: abs(slope - 1) > 0.01))
def test_a_scaled_gradient_is_always_found(candidate: activations.Candidate, slope: float) -> None:
    def function(x: Tensor) -> Tensor:
        y: Tensor = candidate(x)
        return slope * y + ((1 - slope) * y).detach()

    assert recognise(function).kind == "own gradient"


# --- torch's compilers


def test_a_compiled_function_is_run_without_compiling_it() -> None:
    def refuse(graph: Any, inputs: Any) -> Any:
        raise AssertionError("compiled")

    assert recognise(torch.compile(lambda x: x * torch.sigmoid(x), backend=refuse)) == activation("silu")


def test_a_scripted_function_is_recognised() -> None:
    def swish(x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)

    with pytest.warns(FutureWarning, match="torch.jit.script"):
        scripted = torch.jit.script(swish)
    assert recognise(scripted) == activation("silu")


# --- the registry


@pytest.fixture
def registry() -> Iterator[None]:
    with CANDIDATES.temporary():
        yield


@pytest.mark.usefixtures("registry")
def test_a_registered_function_takes_part() -> None:
    def cubed(x: Tensor) -> Tensor:
        return F.relu(x) ** 3

    assert recognise(cubed) == activation("original")
    nasact.register_function("relu_cubed", lambda x: x.clamp(min=0) ** 3, aliases=["relu3"])
    nasact.register_function("log", torch.log)
    nasact.register_function("fast_sine", lambda x: torch.sin(8 * x))
    nasact.register_function("relu_once_more", torch.relu)
    assert recognise(cubed) == activation("relu_cubed")
    assert recognise(torch.log) == activation("log")
    assert recognise(lambda x: torch.sin(8 * x.float())) == activation("fast_sine")
    assert recognise(torch.relu) == activation("relu")


def test_a_function_that_is_no_longer_registered_is_not_named() -> None:
    with CANDIDATES.temporary():
        nasact.register_function("square", torch.square)
        assert recognise(torch.square) == activation("square")
    assert recognise(torch.square) == activation("original")


@pytest.mark.usefixtures("registry")
def test_a_registered_function_that_fails_or_draws_random_numbers_changes_nothing() -> None:
    def only_float32(x: Tensor) -> Tensor:
        if x.dtype == torch.float64:
            raise TypeError("float32 only")
        return x

    nasact.register_function("only_float32", only_float32)
    nasact.register_function("noise", lambda x: x + torch.rand_like(x))
    nasact.register_function("coupled", lambda x: x - x.mean())
    nasact.register_function("slope", lambda x, a: a * x, betas={"a": 1.0})
    before = torch.get_rng_state()
    assert recognise(F.gelu) == activation("gelu")
    assert recognise(torch.cos) == activation("cos")
    assert torch.equal(torch.get_rng_state(), before)


# --- libraries

TRANSFORMERS = {
    "gelu": "gelu", "gelu_10": "original", "gelu_fast": "gelu_tanh", "gelu_new": "gelu_tanh", "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh", "gelu_python_tanh": "gelu_tanh", "gelu_accurate": "gelu_tanh",
    "hardswish": "hard_swish", "laplace": "original", "leaky_relu": "leaky_relu", "mish": "mish",
    "quick_gelu": "quick_gelu", "relu": "relu", "relu2": "squared_relu", "relu6": "relu6", "sigmoid": "sigmoid",
    "silu": "silu", "sqrtsoftplus": "original", "swish": "silu", "tanh": "tanh",
}  # fmt: skip
TIMM = {
    "GELU": "gelu", "GELUTanh": "gelu_tanh", "HardMish": "original", "HardSigmoid": "hard_sigmoid",
    "HardSwish": "hard_swish", "Mish": "mish", "QuickGELU": "quick_gelu", "Sigmoid": "sigmoid", "Swish": "silu",
    "Tanh": "tanh", "HardMishMe": "original", "HardSigmoidMe": "hard_sigmoid", "HardSwishMe": "hard_swish",
    "MishMe": "mish", "SwishMe": "silu",
}  # fmt: skip


def test_the_activations_of_transformers_are_recognised() -> None:
    library = pytest.importorskip("transformers.activations")
    found = {name: recognise(library.ACT2FN[name]) for name in TRANSFORMERS}
    assert found == {name: activation(function) for name, function in TRANSFORMERS.items()}
    assert recognise(library.ACT2FN["linear"]).kind == "linear"
    assert recognise(library.ACT2FN["prelu"]).kind == "fails"
    assert set(library.ACT2CLS) - set(TRANSFORMERS) <= {"linear", "prelu", "xielu"}


def test_the_activations_of_timm_are_recognised() -> None:
    plain = pytest.importorskip("timm.layers.activations")
    memory_efficient = pytest.importorskip("timm.layers.activations_me")
    for inplace in (False, True):
        found = {
            name: recognise(getattr(memory_efficient if name.endswith("Me") else plain, name)(inplace=inplace))
            for name in TIMM
        }
        assert found == {name: activation(function) for name, function in TIMM.items()}
