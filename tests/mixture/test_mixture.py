"""Mixtures: the constraints of each normaliser, what each level shares, and that a vertex is the function itself."""

from __future__ import annotations

import pickle
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nasact import activations
from nasact.errors import MixtureError, UnknownName
from nasact.mixture import KERNELS, NORMALISERS, Bank, FrozenMixture, Layout, Mixture

BASIC = ("relu", "tanh", "sigmoid", "identity")
ONE = torch.tensor(1.0, dtype=torch.float64)
alphas = st.lists(st.floats(-20, 20, allow_nan=False, width=32), min_size=1, max_size=6).map(
    lambda values: torch.tensor(values, dtype=torch.float64)
)


def mixture(normaliser: str = "softmax", names: tuple[str, ...] = BASIC, **options: object) -> Mixture:
    bank = Bank(names, options.pop("layout", Layout()), dtype=torch.float64)  # type: ignore[arg-type]
    return Mixture(bank, normaliser=normaliser, dtype=torch.float64, **options)  # type: ignore[arg-type]


def test_the_normalisers_of_the_field_are_registered() -> None:
    assert set(NORMALISERS.names()) >= {
        "softmax", "ratio", "convex", "affine", "abs", "clip", "sigmoid", "gumbel", "gumbel_hard", "dirichlet", "free",
    }  # fmt: skip


@pytest.mark.parametrize("name", NORMALISERS.names())
@given(alpha=alphas, temperature=st.floats(0.05, 5))
@settings(max_examples=60, deadline=None)
def test_weights_have_the_total_and_sign_of_the_record(name: str, alpha: Tensor, temperature: float) -> None:
    normaliser = NORMALISERS.get(name)
    if normaliser.project is not None:
        alpha = normaliser.project(alpha)
    if name == "abs" and float(alpha.abs().sum()) == 0:
        return
    for sample in (False, True):
        p = normaliser.weights(alpha, temperature * ONE, sample)
        assert p.shape == alpha.shape
        assert torch.isfinite(p).all()
        if normaliser.total == "sum":
            torch.testing.assert_close(p.sum(), ONE, rtol=0, atol=1e-9)
        elif normaliser.total == "absolute":
            torch.testing.assert_close(p.abs().sum(), ONE, rtol=0, atol=1e-9)
        if not normaliser.signed:
            assert (p >= 0).all()


@pytest.mark.parametrize("name", NORMALISERS.names())
@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_the_inverse_gives_alphas_with_the_given_weights(name: str, temperature: float) -> None:
    normaliser = NORMALISERS.get(name)
    p = torch.tensor([0.1, 0.6, 0.3], dtype=torch.float64)
    alpha = normaliser.inverse(p, temperature * ONE)
    torch.testing.assert_close(normaliser.weights(alpha, temperature * ONE, False), p, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", [name for name, n in NORMALISERS.items() if n.project is not None])
@given(alpha=alphas)
@settings(max_examples=60, deadline=None)
def test_the_projection_does_not_change_a_feasible_point(name: str, alpha: Tensor) -> None:
    project = NORMALISERS.get(name).project
    assert project is not None
    once = project(alpha)
    torch.testing.assert_close(project(once), once, rtol=0, atol=1e-12)


@given(alpha=alphas)
@settings(max_examples=60, deadline=None)
def test_the_simplex_projection_is_the_nearest_point(alpha: Tensor) -> None:
    project = NORMALISERS.get("convex").project
    assert project is not None
    nearest = project(alpha)
    assert (nearest >= 0).all()
    for vertex in torch.eye(len(alpha), dtype=torch.float64):
        # the optimality condition of a projection onto a convex set, at every vertex of the simplex
        assert float((alpha - nearest) @ (vertex - nearest)) <= 1e-9


@pytest.mark.parametrize("function", activations.names())
def test_a_one_hot_mixture_equals_its_function(function: str) -> None:
    assert len(activations.names()) >= 25
    names = tuple(dict.fromkeys((*BASIC, function)))
    x = torch.linspace(-4, 4, 60, dtype=torch.float64).reshape(12, 5)
    op = mixture("free", names, init=function)
    candidate = activations.get(function)
    torch.testing.assert_close(op(x), candidate(x, dim=1), rtol=0, atol=0)


@given(alpha=st.lists(st.floats(-6, 6), min_size=3, max_size=3))
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("name", ["convex", "softmax", "ratio", "clip"])
def test_a_convex_mixture_of_monotone_functions_is_monotone(name: str, alpha: list[float]) -> None:
    monotone = ("relu", "tanh", "softplus")
    assert all(activations.get(f).monotone for f in monotone)
    op = mixture(name, monotone)
    with torch.no_grad():
        op.alpha.copy_(torch.tensor(alpha))
    op.project_()
    y = op(torch.linspace(-5, 5, 400, dtype=torch.float64))
    assert (y.diff() >= -1e-12).all()


def test_an_affine_mixture_reaches_outside_the_convex_hull_and_is_not_monotone() -> None:
    op = mixture("affine", ("relu", "tanh"), init={"relu": -1.0, "tanh": 2.0})
    x = torch.tensor([3.0], dtype=torch.float64)
    expected = -torch.relu(x) + 2 * torch.tanh(x)
    torch.testing.assert_close(op(x), expected)
    assert op(x).item() < min(torch.relu(x).item(), torch.tanh(x).item())


@pytest.mark.parametrize("name", NORMALISERS.names())
def test_a_mixture_that_starts_at_one_function_has_a_gradient_to_leave_it(name: str) -> None:
    op = mixture(name, init="relu").eval()  # gumbel draws noise in training
    x = torch.linspace(-2, 2, 50, dtype=torch.float64)
    gap = (op(x) - torch.relu(x)).abs().max().item()
    slack = NORMALISERS.get(name).vertex_slack
    assert gap == 0.0 if slack == 0 else gap <= 8 * slack
    (op(x) * x.cos()).sum().backward()
    assert op.alpha.grad is not None
    assert (op.alpha.grad.abs() > 0).any()
    if slack == 0:
        assert (op.alpha.grad[1:].abs() > 0).all(), "a function with weight zero must have a gradient"


@pytest.mark.parametrize("name", NORMALISERS.names())
@pytest.mark.parametrize(("level", "shape"), [("layer", ()), ("channel", (3,)), ("neuron", (3, 2, 2))])
def test_every_normaliser_at_every_level_passes_gradcheck(name: str, level: str, shape: tuple[int, ...]) -> None:
    op = mixture(name, ("tanh", "sigmoid", "snake"), layout=Layout(level=level, shape=shape)).eval()
    alpha = torch.rand_like(op.alpha) + 0.1
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    beta = op.bank.betas["snake_a"]

    def mixed(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        parameters = {"alpha": alpha, "bank.betas.snake_a": beta}
        out: Tensor = torch.func.functional_call(op, parameters, (x,))
        return out

    inputs = (x, alpha.requires_grad_(), beta.detach().clone().requires_grad_())
    assert torch.autograd.gradcheck(mixed, inputs)
    assert torch.autograd.gradgradcheck(mixed, inputs)


def test_a_mixture_at_channel_level_has_a_function_per_channel() -> None:
    op = mixture("free", ("relu", "tanh"), layout=Layout(level="channel", shape=(2,)))
    with torch.no_grad():
        op.alpha.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    x = torch.randn(4, 2, 5, 5, dtype=torch.float64)
    y = op(x)
    assert torch.equal(y[:, 0], torch.relu(x[:, 0]))
    assert torch.equal(y[:, 1], torch.tanh(x[:, 1]))


def test_a_mixture_at_neuron_level_has_a_function_per_unit() -> None:
    op = mixture("free", ("relu", "tanh"), layout=Layout(level="neuron", shape=(3,)))
    with torch.no_grad():
        op.alpha.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]))
    x = torch.randn(4, 3, dtype=torch.float64)
    y = op(x)
    assert torch.equal(y[:, 0], torch.relu(x[:, 0]))
    assert torch.equal(y[:, 1], torch.tanh(x[:, 1]))
    torch.testing.assert_close(y[:, 2], 0.5 * torch.relu(x[:, 2]) + 0.5 * torch.tanh(x[:, 2]))


def test_softmax_couples_channels_and_not_examples() -> None:
    op = mixture("free", ("softmax",), layout=Layout(level="layer", channel_dim=1))
    x = torch.randn(4, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(op(x).sum(1), torch.ones(4, 5, dtype=torch.float64))


def test_a_low_temperature_sharpens_and_a_high_temperature_equalises_the_weights() -> None:
    op = mixture("softmax", ("relu", "tanh"))
    with torch.no_grad():
        op.alpha.copy_(torch.tensor([1.0, 0.0]))
    op.set_temperature(0.05)
    assert float(op.weights()[0]) > 0.999
    op.set_temperature(100.0)
    assert abs(float(op.weights()[0]) - 0.5) < 0.01


def test_gumbel_draws_in_training_and_is_deterministic_in_evaluation() -> None:
    op = mixture("gumbel")
    x = torch.randn(5, dtype=torch.float64)
    assert not torch.equal(op.train()(x), op(x))
    assert torch.equal(op.eval()(x), op(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_output_has_the_dtype_of_the_input(dtype: torch.dtype) -> None:
    op = Mixture(Bank((*BASIC, "snake"), Layout(), dtype=dtype), dtype=dtype)
    assert op.alpha.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert op(torch.randn(3, 4).to(dtype)).dtype == dtype


def test_a_frozen_mixture_equals_the_mixture_and_has_no_alpha() -> None:
    op = mixture("softmax", (*BASIC, "snake"))
    with torch.no_grad():
        op.alpha.copy_(torch.randn(5))
    frozen = FrozenMixture(op.bank, op.weights())
    x = torch.randn(7, 3, dtype=torch.float64)
    assert torch.equal(frozen(x), op(x))
    assert [name for name, _ in frozen.named_parameters()] == ["bank.betas.snake_a"]


def test_mixtures_can_be_copied_and_pickled() -> None:
    op = mixture("softmax", (*BASIC, "snake"))
    x = torch.randn(7, 3, dtype=torch.float64)
    for restored in (deepcopy(op), pickle.loads(pickle.dumps(op))):
        assert torch.equal(restored(x), op(x))
        assert restored.alpha is not op.alpha


def test_the_reference_kernel_is_registered() -> None:
    assert "reference" in KERNELS


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bank((), Layout()), "the candidate set is empty"),
        (lambda: Bank(("relu", "relu"), Layout()), "'relu' is in the candidate set more than once"),
        (lambda: Bank(("linear", "identity"), Layout()), "'identity' is in the candidate set more than once"),
        (lambda: Layout(level="kernel"), "unknown level 'kernel'"),
        (lambda: mixture("affine", init={"relu": 1.0, "tanh": -1.0}), "sum to zero"),
        (lambda: mixture("softmax", init={"relu": 1.0, "tanh": -1.0}), "cannot be negative"),
        (lambda: mixture("softmax", init={"rleu": 1.0}), "'rleu', which is not in the bank"),
        (lambda: mixture("softmax", temperature=0.0), "the temperature must be above 0, but got 0.0"),
        (lambda: mixture()(torch.arange(4)), "needs a floating point input, but got torch.int64"),
        (
            lambda: mixture(layout=Layout(level="channel", shape=(64,)))(torch.randn(64, dtype=torch.float64)),
            "level 'channel' needs an input of at least 2 dimensions, but got shape (64,)",
        ),
        (
            lambda: mixture(layout=Layout(level="channel", shape=(3,)))(torch.randn(2, 4, dtype=torch.float64)),
            "has 3 channels at dimension 1, but got shape (2, 4)",
        ),
        (
            lambda: mixture(layout=Layout(level="neuron", shape=(3,)))(torch.randn(2, 4, dtype=torch.float64)),
            "has units of shape (3,), but got an input of shape (2, 4)",
        ),
    ],
)
def test_an_impossible_mixture_is_refused_in_one_line(make: object, message: str) -> None:
    with pytest.raises(MixtureError) as caught:
        make()  # type: ignore[operator]
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_refusal_of_an_unknown_normaliser_names_a_near_match() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'softmax'"):
        mixture("sofmax")


def test_an_original_function_is_a_candidate_unchanged() -> None:
    original = nn.LeakyReLU(0.3)
    bank = Bank(("relu", "original"), Layout(), original=original, dtype=torch.float64)
    op = Mixture(bank, normaliser="affine", init="original", dtype=torch.float64)
    x = torch.randn(9, dtype=torch.float64)
    assert torch.equal(op(x), original(x))
