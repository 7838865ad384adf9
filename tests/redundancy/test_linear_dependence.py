"""Conditioning, rank and dependence of columns, against closed forms and numpy's linear algebra."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nasact import activations
from nasact.redundancy import (
    EXACT_TOLERANCE,
    Columns,
    centred_condition_number,
    condition_number,
    numerical_rank,
)

N = 4000
GRID = (torch.arange(N, dtype=torch.float64) + 0.5) / N  # midpoints of [0, 1]: sums are integrals up to 1 / N^2
UNIFORM = 2 * GRID - 1


def columns(**functions: Tensor) -> Columns:
    return Columns(list(functions), torch.stack(list(functions.values()), -1))


def test_orthogonal_functions_have_condition_1() -> None:
    F = torch.stack([torch.cos(math.pi * k * GRID) for k in range(1, 7)], -1)
    assert condition_number(F) == pytest.approx(1, abs=1e-9)
    assert centred_condition_number(F) == pytest.approx(1, abs=1e-9)
    assert numerical_rank(F, 0.99) == 6


@given(st.floats(0.01, math.pi - 0.01))
def test_the_condition_number_of_two_columns_is_the_cotangent_of_half_their_angle(angle: float) -> None:
    a, b = torch.cos(2 * math.pi * GRID), torch.cos(4 * math.pi * GRID)
    F = torch.stack([a, math.cos(angle) * a + math.sin(angle) * b], -1)
    ratio = 1 / math.tan(angle / 2)
    assert condition_number(F) == pytest.approx(max(ratio, 1 / ratio), rel=1e-6)


def test_relu_and_identity_on_uniform_inputs_correlate_as_the_integrals_give() -> None:
    # cov = 1/6, var x = 1/3, var relu = 1/6 - 1/16: r^2 = 0.8
    r = math.sqrt(0.8)
    candidates = columns(relu=torch.relu(UNIFORM), identity=UNIFORM)
    assert centred_condition_number(candidates.F) == pytest.approx(math.sqrt((1 + r) / (1 - r)), rel=1e-5)
    terms, offset, residual = candidates.fit("relu", ["identity"])
    assert (terms["identity"], offset) == (pytest.approx(0.5, abs=1e-6), pytest.approx(0.25, abs=1e-6))
    assert residual == pytest.approx(math.sqrt(0.2), rel=1e-5)


def test_identity_is_exactly_the_sum_of_relu_and_its_mirror_image() -> None:
    candidates = columns(relu=torch.relu(UNIFORM), mirror=-torch.relu(-UNIFORM), identity=UNIFORM)
    assert condition_number(candidates.F) == centred_condition_number(candidates.F) == math.inf
    assert numerical_rank(candidates.F, 1e-6) == 2
    dependence = candidates.find_dependence("identity", ["relu", "mirror"], 0.01, combine=True)
    assert dependence is not None
    assert dependence.kind == "combination"
    assert dependence.terms == {"relu": pytest.approx(1), "mirror": pytest.approx(1)}
    assert dependence.residual < EXACT_TOLERANCE
    assert str(dependence) == "identity = relu + mirror"
    assert candidates.find_dependence("identity", ["relu", "mirror"], 0.01, combine=False) is None


def test_constants_do_not_count_because_a_bias_absorbs_them() -> None:
    x = UNIFORM
    candidates = columns(tanh=torch.tanh(x), shifted=3 - 2 * torch.tanh(x), dead=torch.relu(x - 5), one=torch.ones(N))
    kinds = {
        name: dependence.kind
        for name in ("shifted", "dead", "one")
        if (dependence := candidates.find_dependence(name, ["tanh"], 0.01, combine=False)) is not None
    }
    assert kinds == {"shifted": "affine", "dead": "constant", "one": "constant"}
    assert str(candidates.find_dependence("shifted", ["tanh"], 0.01, combine=False)) == "shifted = -2 tanh + 3"
    assert str(candidates.find_dependence("one", [], 0.01, combine=False)) == "one = 1 (constant)"
    # a column and its shift are two directions, and one direction without their means
    pair = torch.stack([x, x + 1], -1)
    assert condition_number(pair) < 10
    assert centred_condition_number(pair) == math.inf


def test_relu6_is_relu_below_6_and_not_beyond() -> None:
    below, beyond = columns_of_relus(UNIFORM * 5.9), columns_of_relus(UNIFORM * 6.5)
    equal = below.find_dependence("relu6", ["relu"], 0.0, combine=False)
    assert equal is not None
    assert (equal.kind, str(equal)) == ("equal", "relu6 = relu")
    assert beyond.find_dependence("relu6", ["relu"], 1e-3, combine=False) is None
    near = beyond.find_dependence("relu6", ["relu"], 0.1, combine=False)
    assert near is not None
    assert near.kind == "near"


def columns_of_relus(x: Tensor) -> Columns:
    return columns(relu=torch.relu(x), relu6=torch.clamp(x, 0, 6))


BASIS = {
    "relu": torch.relu(UNIFORM * 3),
    "sin": torch.sin(UNIFORM * 9),
    "cube": UNIFORM**3,
    "step": (UNIFORM > 0.5).double(),
}
FACTORS = st.floats(0.2, 5) | st.floats(-5, -0.2)


@settings(max_examples=40)
@given(st.permutations(list(BASIS)), st.integers(2, 4), st.lists(FACTORS, min_size=4, max_size=4), st.floats(-3, 3))
def test_a_combination_is_found_with_its_coefficients(
    order: list[str], count: int, coefficients: list[float], offset: float
) -> None:
    used = dict(zip(order[:count], coefficients, strict=False))
    combined = offset + sum(value * BASIS[name] for name, value in used.items())
    candidates = columns(**BASIS, combined=torch.as_tensor(combined))
    dependence = candidates.find_dependence("combined", list(BASIS), 1e-4, combine=True)
    assert dependence is not None
    assert set(dependence.terms) == set(used)
    for name, value in used.items():
        assert dependence.terms[name] == pytest.approx(value, rel=1e-2)
    assert dependence.offset == pytest.approx(offset, abs=1e-2)


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.integers(2, 6), st.floats(1e-4, 0.5))
def test_residual_rank_and_condition_are_those_of_numpy(seed: int, count: int, tolerance: float) -> None:
    random = np.random.default_rng(seed)
    F = random.normal(size=(60, count)) @ random.normal(size=(count, count)) + random.normal(size=count)
    names = [f"f{k}" for k in range(count)]
    candidates = Columns(names, torch.from_numpy(F))
    centred = (F - F.mean(0)) / np.linalg.norm(F - F.mean(0), axis=0)
    with_ones = np.column_stack([F[:, 1:], np.ones(60)])
    solution, *_ = np.linalg.lstsq(with_ones, F[:, 0], rcond=None)
    terms, offset, residual = candidates.fit("f0", names[1:])
    assert list(terms.values()) == pytest.approx(solution[:-1].tolist(), rel=1e-6, abs=1e-9)
    assert offset == pytest.approx(solution[-1], rel=1e-6, abs=1e-9)
    spread = np.linalg.norm(F[:, 0] - F[:, 0].mean())
    assert residual == pytest.approx(np.linalg.norm(F[:, 0] - with_ones @ solution) / spread, rel=1e-6, abs=1e-9)
    assert centred_condition_number(candidates.F) == pytest.approx(np.linalg.cond(centred), rel=1e-6)
    assert numerical_rank(candidates.F, tolerance) == np.linalg.matrix_rank(centred, rtol=tolerance)


@settings(max_examples=40)
@given(st.lists(st.tuples(FACTORS, st.floats(-5, 5)), min_size=4, max_size=4))
def test_condition_and_residual_are_invariant_to_scale_and_offset(changes: list[tuple[float, float]]) -> None:
    plain = torch.stack(list(BASIS.values()), -1)
    changed = torch.stack([a * column + c for (a, c), column in zip(changes, plain.T, strict=True)], -1)
    assert centred_condition_number(changed) == pytest.approx(centred_condition_number(plain), rel=1e-9)
    residuals = [Columns(list(BASIS), F).fit("sin", ["relu", "cube", "step"])[2] for F in (plain, changed)]
    assert residuals[0] == pytest.approx(residuals[1], rel=1e-9)


def test_a_long_sum_is_never_reported_as_exact() -> None:
    x = UNIFORM / 100  # every smooth function is a short polynomial here, to float32's rounding
    smooth = {"sin": torch.sin, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "exp": torch.exp, "cos": torch.cos}
    candidates = columns(softplus=torch.nn.functional.softplus(x), **{name: f(x) for name, f in smooth.items()})
    dependence = candidates.find_dependence("softplus", list(smooth), 0.0, combine=True)
    assert dependence is None or len(dependence.terms) <= 3
    assert candidates.find_dependence("softplus", list(smooth), 0.01, combine=True) is not None


def test_ten_common_functions_have_rank_7() -> None:
    names = ["relu", "leaky_relu", "elu", "selu", "tanh", "sigmoid", "softplus", "silu", "gelu", "mish"]
    x = torch.distributions.Normal(0.0, 1.0).icdf(GRID)
    F = torch.stack([activations.get(name)(x) for name in names], -1)
    assert numerical_rank(F, 1e-3) == 7
    assert centred_condition_number(F) == math.inf  # selu is a combination of relu and elu
