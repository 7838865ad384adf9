"""The catalogue's facts about each function are true: range, monotony, kinks, jumps, asymptotes, slope, finiteness."""

from __future__ import annotations

import math
import re

import pytest
import torch
from function_oracles import OTHER_BETAS
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nasact import activations
from nasact.activations import Candidate

ELEMENTWISE = tuple(candidate for candidate in activations.candidates() if candidate.elementwise)
EDGES = [1e4, 1e3, 720.0, 709.0, 104.0, 89.0, 88.0, 50.0, 20.0, 8.0, 4.0, 3.0, 1.0, 0.5, 1e-3, 1e-30, 0.0]

every = pytest.mark.parametrize("candidate", ELEMENTWISE, ids=lambda candidate: candidate.name)


def test_the_facts_of_every_scalar_function_are_checked() -> None:
    assert len(ELEMENTWISE) >= 41
    assert "softmax" in {candidate.name for candidate in activations.candidates() if not candidate.elementwise}
    for candidate in activations.candidates():
        assert candidate.formula
        assert candidate.source
        assert "?" not in (candidate.left, candidate.right)


def slopes(candidate: Candidate, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(candidate(leaf).sum(), leaf)[0]


def betas_to_try(candidate: Candidate) -> list[tuple[float, ...]]:
    init = tuple(beta.init for beta in candidate.betas)
    return [init, OTHER_BETAS[candidate.name]] if candidate.betas else [init]


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_value_slope_and_curvature_are_finite_far_out_and_at_every_edge(
    candidate: Candidate, dtype: torch.dtype
) -> None:
    edges = [sign * edge for edge in EDGES for sign in (1.0, -1.0)] + list(candidate.kinks)
    x = torch.tensor(edges, dtype=dtype, requires_grad=True)
    betas = [torch.tensor(beta.init, dtype=dtype, requires_grad=True) for beta in candidate.betas]
    y = candidate(x, *betas)
    assert y.isfinite().all(), x[~y.isfinite()]
    first = torch.autograd.grad(y.sum(), [x, *betas], create_graph=True)
    assert all(gradient.isfinite().all() for gradient in first), x[~first[0].isfinite()]
    if first[0].requires_grad:
        second = torch.autograd.grad(sum(g.sum() for g in first), [x, *betas], allow_unused=True)
        assert all(g is None or g.isfinite().all() for g in second)


@every
def test_bfloat16_stays_finite(candidate: Candidate) -> None:
    x = torch.tensor([1e4, 88.0, 3.0, 0.0, -3.0, -88.0, -1e4], dtype=torch.bfloat16)
    assert candidate(x).isfinite().all()
    assert slopes(candidate, x).isfinite().all()


@every
def test_the_range_holds_and_is_tight(candidate: Candidate) -> None:
    x = torch.cat([torch.linspace(-40, 40, 80_001), torch.tensor([1e4, -1e4, 1e3, -1e3])]).double()
    y = candidate(x)
    low, high = candidate.range
    assert y.min() >= low - 1e-12
    assert y.max() <= high + 1e-12
    assert y.min() <= low + 2e-4 if math.isfinite(low) else y.min() < -20
    assert y.max() >= high - 2e-4 if math.isfinite(high) else y.max() > 20


@given(data=st.data(), x=st.floats(-1e4, 1e4))
def test_range_holds_at_any_point(data: st.DataObject, x: float) -> None:
    candidate = data.draw(st.sampled_from(ELEMENTWISE))
    low, high = candidate.range
    assert low - 1e-12 <= candidate(torch.tensor(x, dtype=torch.float64)).item() <= high + 1e-12


@every
def test_monotone_functions_never_fall_at_any_beta(candidate: Candidate) -> None:
    x = torch.linspace(-30, 30, 60_001, dtype=torch.float64)
    falls = [candidate(x, *betas).diff().min().item() for betas in betas_to_try(candidate)]
    if candidate.monotone:
        assert min(falls) >= -1e-14
    else:
        assert min(falls) < -1e-6


@every
def test_kinks_and_jumps_are_where_the_record_states_and_nowhere_else(candidate: Candidate) -> None:
    slope_jumps = _breaks(lambda x: slopes(candidate, x))
    value_jumps = _breaks(candidate)
    torch.testing.assert_close(value_jumps, torch.tensor(candidate.jumps, dtype=torch.float64), rtol=0, atol=1e-7)
    found = torch.unique(torch.cat([slope_jumps, value_jumps]).mul(1e6).round()) / 1e6
    # a kink with the same slope on both sides is found only by its jump of the value
    torch.testing.assert_close(found, torch.tensor(candidate.kinks, dtype=torch.float64), rtol=0, atol=1e-6)


def _breaks(function: object) -> Tensor:
    """The points where a function of x jumps, to 1e-9: intervals of a fine grid, bisected towards the larger change."""
    assert callable(function)
    grid = torch.linspace(-10.0003, 10.0001, 20_011, dtype=torch.float64)
    change = function(grid).diff().abs()
    worst = change.topk(40).indices
    left, right = grid[worst], grid[worst + 1]
    while (right - left).max() > 1e-9:
        middle = (left + right) / 2
        at_left, at_middle, at_right = function(left), function(middle), function(right)
        go_left = (at_middle - at_left).abs() > (at_right - at_middle).abs()
        left, right = torch.where(go_left, left, middle), torch.where(go_left, middle, right)
    jumps = (function(right) - function(left)).abs() > 1e-4
    return torch.sort((left + right)[jumps] / 2).values


@every
def test_slope_is_bounded_where_the_record_states_it(candidate: Candidate) -> None:
    near = slopes(candidate, torch.linspace(-10, 10, 20_001, dtype=torch.float64)).abs().max()
    far = slopes(candidate, torch.tensor([1e4, -1e4], dtype=torch.float64)).abs().max()
    if candidate.bounded_slope:
        assert max(near, far) < 5
    else:
        assert far > 1e3 or candidate.jumps


def test_the_signed_cube_root_has_the_slope_at_zero_that_its_formula_states() -> None:
    candidate = activations.get("signed_cbrt")
    assert f"slope of {slopes(candidate, torch.zeros(1)).item():.2f} at 0" in candidate.formula


@every
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_function_approaches_its_stated_asymptotes(candidate: Candidate, side: str) -> None:
    text = getattr(candidate, side)
    sign = -1.0 if side == "left" else 1.0
    x = sign * torch.linspace(9_990, 10_000, 1001, dtype=torch.float64)
    if text == "oscillates":
        slope = slopes(candidate, x)
        assert slope.max() - slope.min() > 0.5
        return
    expected = torch.tensor([evaluate(text, value) for value in x.tolist()], dtype=torch.float64)
    # wide enough for six printed digits and for softsign, narrow enough to distinguish x from x + 1
    torch.testing.assert_close(candidate(x), expected, rtol=1e-6, atol=1e-3)


def evaluate(text: str, x: float) -> float:
    """The value at x of an asymptote such as `0.8944 x^2 - 0.4472` or `-(-x)^(1/3)`."""
    assert re.fullmatch(r"[-+()/^. 0-9x]+", text), f"not an asymptote: {text!r}"
    python = re.sub(r"(?<=[0-9]) +x", "*x", text).replace("^", "**")
    return float(eval(python, {"__builtins__": {}}, {"x": x}))


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0.0), ("-x", -2.0), ("0.5 x - 1", 0.0), ("3 x^2", 12.0), ("-(4 x)^(1/3)", -2.0)]
)
def test_asymptotes_are_parsed_by_the_usual_rules(text: str, value: float) -> None:
    assert evaluate(text, 2.0) == pytest.approx(value)
