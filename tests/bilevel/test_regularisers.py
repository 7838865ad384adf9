"""Every regulariser against closed forms, and its gradient against a closed form or another decomposition."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from nasact.bilevel.regularisers import REGULARISERS, build
from nasact.bilevel.regularisers.base import Penalty, RegulariserContext, SearchSetting
from nasact.bilevel.regularisers.beta_decay import BetaDecay
from nasact.bilevel.regularisers.entropy import Entropy
from nasact.bilevel.regularisers.l2 import L2
from nasact.bilevel.regularisers.layer_mean import LayerMean
from nasact.bilevel.regularisers.penalised_loss import penalties
from nasact.bilevel.regularisers.sdarts import SDARTS, on_simplex
from nasact.bilevel.regularisers.spectral import Spectral
from nasact.errors import StudyError, UnknownName
from nasact.mixture import NORMALISERS, Normaliser

NAMES = REGULARISERS.names()


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def simplex(*shape: int, seed: int = 0) -> Tensor:
    return torch.softmax(random_tensor(*shape, seed=seed), -1)


def full_context(progress: float = 0.9) -> RegulariserContext:
    alphas = {"one": random_tensor(4), "two": random_tensor(3, 4, seed=1)}
    return RegulariserContext(
        kernels={"conv": random_tensor(5, 2, 3, 3), "dense": random_tensor(4, 6)},
        alphas=alphas,
        p={site: torch.softmax(alpha, -1) for site, alpha in alphas.items()},
        functions=dict.fromkeys(alphas, ("relu", "tanh", "silu", "identity")),
        originals={"one": "relu", "two": "tanh"},
        progress=progress,
    )


def test_every_regulariser_is_a_frozen_record_that_states_its_source_and_formula() -> None:
    assert {"entropy", "beta_decay", "spectral", "l2", "layer_mean", "sdarts"} <= set(NAMES)
    for name, record in REGULARISERS.items():
        assert record.name == name
        assert record.target_loss in ("validation", "training")
        assert record.source
        assert record.formula
        with pytest.raises(FrozenInstanceError):
            build(name, {}).nothing = 1  # type: ignore[union-attr]


@pytest.mark.parametrize("penalty", penalties([build(name, {}) for name in NAMES]), ids=lambda penalty: penalty.name)
def test_a_penalty_is_a_positive_number_repeats_to_the_bit_and_draws_nothing(penalty: Penalty) -> None:
    before = torch.get_rng_state()
    value, again = penalty(full_context()), penalty(full_context())
    assert value.shape == ()
    assert float(value) > 0
    assert torch.equal(value, again)
    assert torch.equal(torch.get_rng_state(), before)


# ---------------------------------------------------------------------------------------------------------- entropy


@pytest.mark.parametrize("k", [2, 5])
def test_entropy_of_uniform_weights_is_log_k_and_of_a_decision_is_zero(k: int) -> None:
    penalty = Entropy(coefficient=3.0, start=0.0)
    uniform = RegulariserContext(p={"a": torch.full((k,), 1 / k), "b": torch.full((7, k), 1 / k)}, progress=1.0)
    assert float(penalty(uniform)) == pytest.approx(3 * math.log(k), rel=1e-6)
    assert float(penalty(RegulariserContext(p={"a": torch.eye(k)}, progress=1.0))) == 0


def test_the_gradient_of_entropy_is_minus_log_p_minus_one_and_finite_at_a_zero() -> None:
    p = torch.tensor([0.7, 0.3, 0.0], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(Entropy(coefficient=1.0, start=0.0)(RegulariserContext(p={"a": p}, progress=1.0)), p)
    expected = [-math.log(0.7) - 1, -math.log(0.3) - 1, 0.0]
    torch.testing.assert_close(grad, torch.tensor(expected, dtype=torch.float64))


def test_entropy_is_a_mean_over_sites_of_the_mean_over_the_channels_of_a_site() -> None:
    half = torch.full((2,), 0.5, dtype=torch.float64)
    channels = torch.stack([half, *torch.eye(2, dtype=torch.float64).repeat(3, 1)[:3]])
    context = RegulariserContext(p={"layer": half, "channel": channels}, progress=1.0)
    assert float(Entropy(coefficient=1.0, start=0.0)(context)) == pytest.approx(math.log(2) * (1 + 1 / 4) / 2)


@pytest.mark.parametrize(("schedule", "halfway"), [("linear", 0.5), ("cosine", 0.5)])
def test_entropy_is_zero_until_its_start_and_rises_to_the_coefficient(schedule: str, halfway: float) -> None:
    penalty = Entropy(coefficient=2.0, start=0.6, schedule=schedule)
    steps = [penalty.strength(t / 100) for t in range(101)]
    assert steps[:61] == [0.0] * 61
    assert all(b > a for a, b in pairwise(steps[60:]))
    assert penalty.strength(0.8) == pytest.approx(2 * halfway)
    assert penalty.strength(1.0) == pytest.approx(2.0)
    at_70 = {"linear": 0.25, "cosine": (1 - math.cos(math.pi / 4)) / 2}[schedule]
    assert penalty.strength(0.7) == pytest.approx(2 * at_70)


# ------------------------------------------------------------------------------------------------------- beta_decay


def test_the_gradient_of_beta_decay_is_the_softmax_times_the_progress() -> None:
    one, two = random_tensor(4).requires_grad_(), random_tensor(3, 4, seed=1).requires_grad_()
    penalty = BetaDecay(coefficient=50.0)
    value = penalty(RegulariserContext(alphas={"one": one, "two": two}, progress=0.4))
    expected = 50 * 0.4 * (one.exp().sum().log() + two.exp().sum(-1).log().mean()) / 2
    torch.testing.assert_close(value, expected)
    grads = torch.autograd.grad(value, (one, two))
    torch.testing.assert_close(grads[0], 20 * torch.softmax(one.detach(), -1) / 2)
    torch.testing.assert_close(grads[1], 20 * torch.softmax(two.detach(), -1) / 6)
    assert float(penalty(RegulariserContext(alphas={"one": one}, progress=0.0)).detach()) == 0


# --------------------------------------------------------------------------------------------------------- spectral


@pytest.mark.parametrize("shape", [(6, 4), (4, 9), (5, 2, 3, 3), (1, 7), (3, 1)])
def test_spectral_and_its_gradient_equal_those_of_the_singular_value_decomposition(shape: tuple[int, ...]) -> None:
    kernel = random_tensor(*shape, seed=2).requires_grad_()
    value = Spectral(coefficient=0.3, iterations=2000)(RegulariserContext(kernels={"k": kernel}))
    (found,) = torch.autograd.grad(value, kernel)
    u, s, vh = torch.linalg.svd(kernel.detach().flatten(1), full_matrices=False)
    assert float(value.detach()) == pytest.approx(0.15 * float(s[0]) ** 2, rel=1e-12)
    expected = 0.3 * s[0] * torch.outer(u[:, 0], vh[0])
    torch.testing.assert_close(found, expected.view_as(kernel), rtol=1e-9, atol=1e-10)


def test_spectral_is_a_sum_over_layers_and_a_convolution_is_a_matrix_with_one_row_per_output() -> None:
    one, two = random_tensor(5, 2, 3, 3), random_tensor(4, 6, seed=1)
    penalty = Spectral(coefficient=1.0, iterations=2000)
    norms = [float(torch.linalg.matrix_norm(w.reshape(w.shape[0], -1), 2)) for w in (one, two)]
    value = float(penalty(RegulariserContext(kernels={"a": one, "b": two})))
    assert value == pytest.approx(sum(norm**2 for norm in norms) / 2, rel=1e-10)


def test_spectral_finds_the_norm_if_the_leading_vector_is_orthogonal_to_ones() -> None:
    kernel = torch.tensor([[3.0, -3.0, 0.0], [0.1, 0.1, 0.1]], dtype=torch.float64)
    assert float(Spectral(coefficient=2.0)(RegulariserContext(kernels={"k": kernel}))) == pytest.approx(18, rel=1e-9)


def test_ten_iterations_approximate_the_norm_of_a_new_layer_from_below() -> None:
    ratios = []
    for seed in range(20):
        torch.manual_seed(seed)
        kernel = torch.nn.Conv2d(16, 32, 3).weight.detach().double()
        exact = float(torch.linalg.matrix_norm(kernel.flatten(1), 2)) ** 2
        ratios.append(float(Spectral(coefficient=2.0)(RegulariserContext(kernels={"k": kernel}))) / exact)
    assert max(ratios) <= 1 + 1e-12
    assert min(ratios) > 0.85


def test_spectral_of_a_kernel_of_zeros_is_zero_with_a_gradient_of_zeros() -> None:
    kernel = torch.zeros(3, 4, requires_grad=True)
    value = Spectral()(RegulariserContext(kernels={"k": kernel}))
    (grad,) = torch.autograd.grad(value, kernel)
    assert float(value.detach()) == 0
    assert torch.equal(grad, torch.zeros(3, 4))


# --------------------------------------------------------------------------------------------------- l2, layer_mean


def test_l2_is_the_sum_of_squares_with_the_gradient_2_lambda_w() -> None:
    kernel = random_tensor(3, 4).requires_grad_()
    value = L2(coefficient=0.25)(RegulariserContext(kernels={"a": kernel, "b": torch.full((2, 2), 3.0)}))
    assert float(value.detach()) == pytest.approx(0.25 * (float((kernel.detach() ** 2).sum()) + 36))
    torch.testing.assert_close(torch.autograd.grad(value, kernel)[0], 0.5 * kernel.detach())


@pytest.mark.parametrize("name", ["l2", "spectral"])
def test_the_penalty_of_a_model_without_kernels_is_zero(name: str) -> None:
    assert float(build(name, {})(RegulariserContext())) == 0


def test_layer_mean_is_the_variance_of_the_units_and_its_gradient_points_away_from_their_mean() -> None:
    p = simplex(5, 3).requires_grad_()
    value = LayerMean(coefficient=0.7)(context_of_units({"site": p}))
    torch.testing.assert_close(value, 0.7 * p.var(0, correction=0).sum())
    (grad,) = torch.autograd.grad(value, p)
    torch.testing.assert_close(grad, 0.7 * 2 / 5 * (p - p.mean(0)).detach())


def context_of_units(p: dict[str, Tensor]) -> RegulariserContext:
    names = ("relu", "tanh", "silu", "identity")
    originals = dict.fromkeys(p, "tanh")
    return RegulariserContext(
        p=p, functions={site: names[: part.shape[-1]] for site, part in p.items()}, originals=originals
    )


def test_layer_mean_is_zero_if_all_units_are_equal_or_there_is_only_one() -> None:
    row = simplex(3)
    penalty = LayerMean(coefficient=1.0)
    assert float(penalty(context_of_units({"a": row}))) == 0
    assert float(penalty(context_of_units({"a": row.expand(4, 2, 3)}))) < 1e-30


@pytest.mark.parametrize(("benchmark", "index"), [("original", 1), ("silu", 2)])
def test_delta_pulls_to_the_benchmark_function(benchmark: str, index: int) -> None:
    p = simplex(5, 3)
    value = LayerMean(coefficient=0.0, delta=2.0, benchmark=benchmark)(context_of_units({"site": p}))
    expected = sum(2.0 / 5 * (float(p[i, k]) - (k == index)) ** 2 for i in range(5) for k in range(3))
    assert float(value) == pytest.approx(expected)
    vertex = torch.eye(3, dtype=torch.float64)[index].expand(5, 3)
    assert float(LayerMean(coefficient=1.0, delta=2.0, benchmark=benchmark)(context_of_units({"site": vertex}))) == 0


def test_per_site_sets_a_lambda_for_every_layer() -> None:
    p = {"a": simplex(4, 3), "b": simplex(6, 3, seed=1)}
    each_site = [float(LayerMean(coefficient=1.0)(context_of_units({site: part}))) for site, part in p.items()]
    value = LayerMean(coefficient=0.5, per_site=(3.0, 0.1))(context_of_units(p))
    assert float(value) == pytest.approx(0.5 * (3 * each_site[0] + 0.1 * each_site[1]))
    with pytest.raises(StudyError, match="per_site needs one entry for each of 2 sites, but got 3"):
        LayerMean(per_site=(1.0, 1.0, 1.0))(context_of_units(p))


def test_a_benchmark_that_the_search_has_dropped_does_not_pull() -> None:
    p = simplex(5, 2)
    context = RegulariserContext(p={"a": p}, functions={"a": ("relu", "silu")}, originals={"a": "tanh"})
    assert float(LayerMean(coefficient=0.0, delta=1.0)(context)) == 0


# ----------------------------------------------------------------------------------------------------------- sdarts


def no_slope(p):
    raise AssertionError("a random perturbation must not compute a gradient")


def test_random_perturbation_is_uniform_within_eps_before_it_is_renormalised() -> None:
    p = torch.full((20_000, 2), 0.5, dtype=torch.float64)
    torch.manual_seed(0)
    moved = SDARTS(start=0.1, end=0.1).perturb({"a": p}, no_slope, 0.0)["a"]
    torch.testing.assert_close(moved.sum(-1), torch.ones(20_000, dtype=torch.float64))
    # p1 / (p1 + p2) of two uniform draws from [0.4, 0.6]: between 0.4 and 0.6, symmetric about a half
    assert 0.4 <= float(moved.min()) < 0.405
    assert 0.595 < float(moved.max()) <= 0.6
    assert float(moved[:, 0].mean()) == pytest.approx(0.5, abs=2e-3)
    assert float(moved[:, 0].std()) == pytest.approx(0.1 / math.sqrt(6), rel=0.03)


def test_eps_rises_linearly_as_published() -> None:
    radii = [SDARTS().radius(t) for t in (0.0, 0.5, 1.0)]
    assert radii == pytest.approx([0.03, 0.165, 0.3])


def test_pgd_finds_the_worst_corner_of_a_linear_loss_and_is_worse_than_random() -> None:
    """The corner is p + eps times the sign of the slope; renormalising after every step ends slightly before it."""
    p, slope = {"a": torch.full((3,), 1 / 3, dtype=torch.float64)}, torch.tensor([2.0, -1.0, -1.0], dtype=torch.float64)
    torch.manual_seed(1)
    moved = SDARTS(attack="pgd", start=0.1, end=0.1).perturb(p, lambda p: {"a": slope}, 0.5)["a"]
    corner = p["a"] + 0.1 * slope.sign()
    torch.testing.assert_close(moved, corner / corner.sum(), rtol=0, atol=1e-3)
    losses = [float(slope @ SDARTS(start=0.1, end=0.1).perturb(p, no_slope, 0.5)["a"]) for _ in range(50)]
    assert float(slope @ moved) > max(losses)


def test_pgd_computes_one_gradient_per_step() -> None:
    calls: list[int] = []

    def slope(p):
        calls.append(1)
        return {site: torch.zeros_like(part) for site, part in p.items()}

    SDARTS(attack="pgd", steps=7).perturb({"a": simplex(4)}, slope, 0.0)
    assert len(calls) == 7


def test_rows_return_to_the_simplex_even_without_a_positive_entry() -> None:
    p = torch.tensor([[0.5, -0.1, 0.3], [-0.1, -0.02, -0.3], [1.4, 0.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([[0.625, 0, 0.375], [0, 1, 0], [1, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(on_simplex(p), expected)


# --------------------------------------------------------------------------------------------------- what is refused


def evaluation_and_training_passes(normaliser: Normaliser) -> tuple[Tensor, list[Tensor]]:
    """Return alphas (50, 4) and their mixture weights in evaluation and in several training passes."""
    alpha, one = random_tensor(50, 4), torch.tensor(1.0, dtype=torch.float64)
    if normaliser.project is not None:
        alpha = normaliser.project(alpha)
    torch.manual_seed(0)
    return alpha, [normaliser.weights(alpha, one, training) for training in (False, True, True, True)]


def has_entropy(normaliser: Normaliser) -> bool:
    evaluation = evaluation_and_training_passes(normaliser)[1][0]
    return bool((evaluation >= 0).all()) and bool(((evaluation.sum(-1) - 1).abs() < 1e-9).all())


def has_logits(normaliser: Normaliser) -> bool:
    alpha, (evaluation, *_) = evaluation_and_training_passes(normaliser)
    return torch.allclose(evaluation, torch.softmax(alpha, -1), rtol=1e-9, atol=0)


def has_the_same_simplex_weights_in_training(normaliser: Normaliser) -> bool:
    evaluation, *training = evaluation_and_training_passes(normaliser)[1]
    return has_entropy(normaliser) and all(torch.equal(evaluation, p) for p in training)


@pytest.mark.parametrize(
    ("name", "has_meaning"),
    [
        ("entropy", has_entropy),
        ("beta_decay", has_logits),
        ("sdarts", has_the_same_simplex_weights_in_training),
        ("spectral", lambda normaliser: True),
        ("l2", lambda normaliser: True),
        ("layer_mean", lambda normaliser: True),
    ],
)
def test_a_regulariser_supports_the_normalisers_with_which_it_has_a_meaning(
    name: str, has_meaning: Callable[[Normaliser], bool]
) -> None:
    assert len(NORMALISERS) >= 11
    regulariser = build(name, {})
    refused = {
        normaliser.name
        for normaliser in NORMALISERS.values()
        if regulariser.refusal(SearchSetting(normaliser=normaliser, level="channel")) is not None
    }
    assert refused == {normaliser.name for normaliser in NORMALISERS.values() if not has_meaning(normaliser)}


@pytest.mark.parametrize("name", NAMES)
def test_a_refusal_names_the_normaliser(name: str) -> None:
    for normaliser in NORMALISERS.values():
        reason = build(name, {}).refusal(SearchSetting(normaliser=normaliser, level="channel"))
        assert reason is None or repr(normaliser.name) in reason


def test_layer_mean_is_refused_at_level_layer_or_without_its_benchmark() -> None:
    softmax = NORMALISERS.get("softmax")
    at_layer = SearchSetting(normaliser=softmax, level="layer", functions=("relu", "tanh"), original="silu")
    assert "its own mean" in str(LayerMean().refusal(at_layer))
    assert "'silu' is not among the candidates relu, tanh" in str(LayerMean(delta=1.0).refusal(at_layer))
    assert LayerMean(delta=1.0, benchmark="relu").refusal(at_layer) is None


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("entropi", {}, "unknown regulariser 'entropi'. Did you mean 'entropy'"),
        ("entropy", {"coefficent": 1.0}, "unknown option 'coefficent' of regulariser 'entropy'. Did you mean 'coeff"),
        ("entropy", {"coefficient": 0.0}, "coefficient must be a positive number, but got 0"),
        ("entropy", {"start": 1.0}, "start must be a part of the search, from 0 to below 1, but got 1.0"),
        ("entropy", {"schedule": "linea"}, "schedule must be 'linear' or 'cosine', but got 'linea'"),
        ("beta_decay", {"coefficient": math.inf}, "coefficient must be a positive number"),
        ("spectral", {"iterations": 0}, "iterations must be a whole number of at least 1, but got 0"),
        ("l2", {"coefficient": "much"}, "coefficient must be a number, but got 'much'"),
        ("layer_mean", {"delta": -1.0}, "delta must be a number of at least 0, but got -1.0"),
        ("layer_mean", {"coefficient": 0.0}, "coefficient must be above 0 if delta is 0"),
        ("layer_mean", {"per_site": 3}, "per_site must be a list of numbers, but got 3"),
        ("layer_mean", {"per_site": [1, -1]}, "per_site must hold numbers of at least 0"),
        ("sdarts", {"attack": "fgsm"}, "attack must be 'random' or 'pgd', but got 'fgsm'"),
        ("sdarts", {"end": 1.5}, "end must be at most 1, the largest mixture weight, but got 1.5"),
        ("sdarts", {"steps": 0}, "steps must be a whole number of at least 1, but got 0"),
    ],
)
def test_invalid_options_are_refused_in_one_line(name: str, options: dict, message: str) -> None:
    with pytest.raises((StudyError, UnknownName)) as caught:
        build(name, options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
