"""Every candidate computes its formula: value, derivatives, precision, broadcasting, and torch's own module."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from function_oracles import ORACLES, OTHER_BETAS, SOFTMAX_OTHERS, oracle
from torch import Tensor

from nasact import activations
from nasact.activations import Candidate

CATALOGUE = activations.candidates()
ELEMENTWISE = tuple(candidate for candidate in CATALOGUE if candidate.elementwise)
WITH_BETAS = tuple(candidate for candidate in CATALOGUE if candidate.betas)
WITH_MODULE = tuple(candidate for candidate in CATALOGUE if candidate.module)

# torch's softplus returns x above 20, which is off by 2e-9
SOFTPLUS_CUT = 2.1e-9

every = pytest.mark.parametrize("candidate", CATALOGUE, ids=lambda candidate: candidate.name)
elementwise = pytest.mark.parametrize("candidate", ELEMENTWISE, ids=lambda candidate: candidate.name)


def init(candidate: Candidate) -> tuple[float, ...]:
    return tuple(beta.init for beta in candidate.betas)


def along(candidate: Candidate, x: Tensor, *betas: float) -> Tensor:
    """The candidate at every x; for softmax, its first output as a function of its first input, the others fixed."""
    if candidate.elementwise:
        return candidate(x, *betas)
    others = x.new_tensor(SOFTMAX_OTHERS).expand(*x.shape, len(SOFTMAX_OTHERS))
    return candidate(torch.cat([x.unsqueeze(-1), others], dim=-1))[..., 0]


def points(candidate: Candidate) -> Tensor:
    grid = torch.linspace(-9.7, 9.7, 98, dtype=torch.float64)
    special = [0.0, *candidate.kinks, 1e-3, -1e-3, 19.5, 20.5, 45.0, -19.5, -20.5, -45.0, 1e4, -1e4]
    return torch.cat([grid, torch.tensor(special, dtype=torch.float64)])


def test_catalogue_and_oracles_hold_the_same_functions() -> None:
    assert len(CATALOGUE) >= 42
    assert set(activations.names()) == set(ORACLES)
    assert {candidate.name for candidate in WITH_BETAS} == set(OTHER_BETAS)
    assert len(ELEMENTWISE) >= 41
    assert len(WITH_MODULE) >= 24


@every
@pytest.mark.parametrize("which", ["initial betas", "other betas"])
def test_the_value_equals_the_formula(candidate: Candidate, which: str) -> None:
    betas = init(candidate) if which == "initial betas" else OTHER_BETAS.get(candidate.name, ())
    x = points(candidate)
    expected = torch.tensor([oracle(candidate.name, value, *betas) for value in x.tolist()], dtype=torch.float64)
    atol = SOFTPLUS_CUT if candidate.name in ("softplus", "mish", "serf") else 1e-13
    torch.testing.assert_close(along(candidate, x, *betas), expected, rtol=2e-13, atol=atol)


@every
def test_the_value_in_float32_equals_the_formula(candidate: Candidate) -> None:
    x = points(candidate).float()
    expected = torch.tensor([oracle(candidate.name, value, *init(candidate)) for value in x.tolist()])
    torch.testing.assert_close(along(candidate, x), expected, rtol=2e-6, atol=2e-6)


@every
def test_first_and_second_derivatives_match_finite_differences(candidate: Candidate) -> None:
    x = torch.tensor([-11.3, -3.71, -2.3, -1.37, -0.83, -0.23, 0.17, 0.61, 1.43, 2.37, 3.71, 11.3], dtype=torch.float64)
    assert all(abs(x - kink).min() > 0.05 for kink in candidate.kinks)
    inputs = [x.requires_grad_()]
    for value in OTHER_BETAS.get(candidate.name, ()):
        inputs.append(torch.tensor(value, dtype=torch.float64, requires_grad=True))

    def function(x: Tensor, *betas: Tensor) -> Tensor:
        return candidate(x, *betas)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_dtype_and_shape_are_kept_for_any_precision_of_the_betas(candidate: Candidate, dtype: torch.dtype) -> None:
    x = torch.linspace(-3, 3, 24).reshape(2, 3, 4).to(dtype)
    y = candidate(x)
    assert y.dtype == dtype
    assert y.shape == x.shape
    betas = [torch.full((3, 1), beta.init) for beta in candidate.betas]
    y_with_tensors = candidate(x, *betas)
    assert y_with_tensors.dtype == dtype
    tolerance = 0.02 if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(y_with_tensors, y, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("candidate", WITH_BETAS, ids=lambda candidate: candidate.name)
def test_betas_per_channel_equal_separate_calls_per_channel(candidate: Candidate) -> None:
    x = torch.randn(2, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    pairs = list(zip(init(candidate), OTHER_BETAS[candidate.name], strict=True))
    y = candidate(x, *(torch.tensor(pair).reshape(2, 1, 1) for pair in pairs))
    for channel in (0, 1):
        torch.testing.assert_close(y[:, channel], candidate(x[:, channel], *(pair[channel] for pair in pairs)))


@pytest.mark.parametrize("candidate", WITH_BETAS, ids=lambda candidate: candidate.name)
@pytest.mark.parametrize("side", ["low", "high"])
def test_a_beta_beyond_its_bound_acts_as_the_bound_and_keeps_gradients_finite(candidate: Candidate, side: str) -> None:
    x = torch.linspace(-5, 5, 31, dtype=torch.float64)
    bounds = [getattr(beta, side) for beta in candidate.betas]
    beyond = [bound if abs(bound) < float("inf") else 1.5 for bound in bounds]
    step = -1.0 if side == "low" else 1.0
    betas = [
        torch.tensor(value + (step if value == bound else 0.0), dtype=torch.float64, requires_grad=True)
        for value, bound in zip(beyond, bounds, strict=True)
    ]
    y = candidate(x, *betas)
    torch.testing.assert_close(y, candidate(x, *beyond))
    gradients = torch.autograd.grad(y.sum(), betas)
    assert all(gradient.isfinite().all() for gradient in gradients)
    for beta, value, bound in zip(candidate.betas, betas, beyond, strict=True):
        beta.clamp_(value)
        assert value.item() == bound


@pytest.mark.parametrize("candidate", WITH_MODULE, ids=lambda candidate: candidate.name)
def test_torch_s_module_is_bit_identical_and_has_the_same_slope(candidate: Candidate) -> None:
    assert candidate.module is not None
    module = candidate.module()
    x = torch.cat([torch.linspace(-25, 25, 1001), torch.tensor(candidate.kinks)]).requires_grad_()
    ours, theirs = candidate(x), module(x)
    assert torch.equal(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(y.sum(), x)[0] for y in (ours, theirs)))


@elementwise
def test_functional_transforms_and_tracing_work(candidate: Candidate) -> None:
    """Hypergradients use vmap and torch.func, surgery and export tracing: data-dependent control flow would fail."""
    x = torch.linspace(-4.9, 5.1, 21, dtype=torch.float64)
    slopes = torch.func.vmap(torch.func.grad(lambda value: candidate(value)))(x)
    leaf = x.clone().requires_grad_()
    torch.testing.assert_close(slopes, torch.autograd.grad(candidate(leaf).sum(), leaf)[0])

    class Net(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return candidate(x)

    assert torch.equal(torch.fx.symbolic_trace(Net())(x), candidate(x))


def test_softmax_couples_the_given_dimension() -> None:
    softmax = activations.get("softmax")
    assert not softmax.elementwise
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(softmax(x, dim=1).sum(1), torch.ones(2, 4))
    torch.testing.assert_close(softmax(x).sum(-1), torch.ones(2, 3))


@every
def test_a_record_survives_copy_and_pickle(candidate: Candidate) -> None:
    x = torch.linspace(-2, 2, 5)
    for restored in (copy.deepcopy(candidate), pickle.loads(pickle.dumps(candidate))):
        assert restored.name == candidate.name
        assert restored.betas == candidate.betas
        assert torch.equal(restored(x), candidate(x))
