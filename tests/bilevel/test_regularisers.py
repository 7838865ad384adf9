"""Every regulariser against closed forms, and its gradient against one derived by hand or by another decomposition."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from nasact.bilevel.regularisers import (
    L2,
    REGULARISERS,
    SDARTS,
    BetaDecay,
    Entropy,
    LayerMean,
    RegulariserContext,
    Setting,
    Spectral,
    build,
)
from nasact.bilevel.regularisers.sdarts import on_simplex
from nasact.errors import StudyError, UnknownName
from nasact.mixture import NORMALISERS

NAMES = REGULARISERS.names()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def simplex(*shape: int, seed: int = 0) -> Tensor:
    return torch.softmax(drawn(*shape, seed=seed), -1)


def everything(progress: float = 0.9) -> RegulariserContext:
    alphas = {"one": drawn(4), "two": drawn(3, 4, seed=1)}
    return RegulariserContext(
        kernels={"conv": drawn(5, 2, 3, 3), "dense": drawn(4, 6)},
        alphas=alphas,
        p={site: torch.softmax(alpha, -1) for site, alpha in alphas.items()},
        functions=dict.fromkeys(alphas, ("relu", "tanh", "silu", "identity")),
        originals={"one": "relu", "two": "tanh"},
        progress=progress,
    )


def test_all_regularisers_are_found_and_say_what_they_are() -> None:
    assert NAMES == ("entropy", "beta_decay", "spectral", "l2", "layer_mean", "sdarts")
    for name, record in REGULARISERS.items():
        assert record.name == name
        assert record.on in ("validation", "training")
        assert record.source
        assert record.formula
        with pytest.raises(FrozenInstanceError):
            build(name, {}).nothing = 1  # type: ignore[union-attr]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "sdarts"])
def test_penalty_is_a_positive_number_repeats_to_the_bit_and_draws_nothing(name: str) -> None:
    penalty, before = build(name, {}), torch.get_rng_state()
    one, again = penalty(everything()), penalty(everything())
    assert one.shape == ()
    assert float(one) > 0
    assert torch.equal(one, again)
    assert torch.equal(torch.get_rng_state(), before)


# ---------------------------------------------------------------------------------------------------------- entropy


@pytest.mark.parametrize("k", [2, 5])
def test_entropy_of_uniform_weights_is_log_k_and_of_a_decision_is_zero(k: int) -> None:
    penalty = Entropy(coefficient=3.0, start=0.0)
    uniform = RegulariserContext(p={"a": torch.full((k,), 1 / k), "b": torch.full((7, k), 1 / k)}, progress=1.0)
    assert float(penalty(uniform)) == pytest.approx(3 * math.log(k), rel=1e-6)
    assert float(penalty(RegulariserContext(p={"a": torch.eye(k)}, progress=1.0))) == 0


def test_entropys_gradient_is_minus_log_p_minus_one_and_finite_at_a_zero() -> None:
    p = torch.tensor([0.7, 0.3, 0.0], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(Entropy(coefficient=1.0, start=0.0)(RegulariserContext(p={"a": p}, progress=1.0)), p)
    expected = [-math.log(0.7) - 1, -math.log(0.3) - 1, 0.0]
    torch.testing.assert_close(grad, torch.tensor(expected, dtype=torch.float64))


def test_entropy_is_a_mean_over_sites_in_which_a_sites_channels_are_one_mean() -> None:
    half = torch.full((2,), 0.5, dtype=torch.float64)
    channels = torch.stack([half, *torch.eye(2, dtype=torch.float64).repeat(3, 1)[:3]])
    seen = RegulariserContext(p={"layer": half, "channel": channels}, progress=1.0)
    assert float(Entropy(coefficient=1.0, start=0.0)(seen)) == pytest.approx(math.log(2) * (1 + 1 / 4) / 2)


@pytest.mark.parametrize(("schedule", "halfway"), [("linear", 0.5), ("cosine", 0.5)])
def test_entropy_is_silent_until_its_start_and_rises_to_the_coefficient(schedule: str, halfway: float) -> None:
    penalty = Entropy(coefficient=2.0, start=0.6, schedule=schedule)
    steps = [penalty.strength(t / 100) for t in range(101)]
    assert steps[:61] == [0.0] * 61
    assert all(b > a for a, b in pairwise(steps[60:]))
    assert penalty.strength(0.8) == pytest.approx(2 * halfway)
    assert penalty.strength(1.0) == pytest.approx(2.0)
    at_70 = {"linear": 0.25, "cosine": (1 - math.cos(math.pi / 4)) / 2}[schedule]
    assert penalty.strength(0.7) == pytest.approx(2 * at_70)


# ------------------------------------------------------------------------------------------------------- beta_decay


def test_beta_decays_gradient_is_the_softmax_and_its_strength_the_part_of_the_search() -> None:
    one, two = drawn(4).requires_grad_(), drawn(3, 4, seed=1).requires_grad_()
    penalty = BetaDecay(coefficient=50.0)
    value = penalty(RegulariserContext(alphas={"one": one, "two": two}, progress=0.4))
    by_hand = 50 * 0.4 * (one.exp().sum().log() + two.exp().sum(-1).log().mean()) / 2
    torch.testing.assert_close(value, by_hand)
    grads = torch.autograd.grad(value, (one, two))
    torch.testing.assert_close(grads[0], 20 * torch.softmax(one.detach(), -1) / 2)
    torch.testing.assert_close(grads[1], 20 * torch.softmax(two.detach(), -1) / 6)
    assert float(penalty(RegulariserContext(alphas={"one": one}, progress=0.0)).detach()) == 0


# --------------------------------------------------------------------------------------------------------- spectral


@pytest.mark.parametrize("shape", [(6, 4), (4, 9), (5, 2, 3, 3), (1, 7), (3, 1)])
def test_spectral_and_its_gradient_are_those_of_the_singular_value_decomposition(shape: tuple[int, ...]) -> None:
    kernel = drawn(*shape, seed=2).requires_grad_()
    value = Spectral(coefficient=0.3, iterations=2000)(RegulariserContext(kernels={"k": kernel}))
    (found,) = torch.autograd.grad(value, kernel)
    u, s, vh = torch.linalg.svd(kernel.detach().flatten(1), full_matrices=False)
    assert float(value.detach()) == pytest.approx(0.15 * float(s[0]) ** 2, rel=1e-12)
    expected = 0.3 * s[0] * torch.outer(u[:, 0], vh[0])
    torch.testing.assert_close(found, expected.view_as(kernel), rtol=1e-9, atol=1e-10)


def test_spectral_adds_its_layers_and_counts_a_convolution_as_out_by_the_rest() -> None:
    one, two = drawn(5, 2, 3, 3), drawn(4, 6, seed=1)
    penalty = Spectral(coefficient=1.0, iterations=2000)
    norms = [float(torch.linalg.matrix_norm(w.reshape(w.shape[0], -1), 2)) for w in (one, two)]
    value = float(penalty(RegulariserContext(kernels={"a": one, "b": two})))
    assert value == pytest.approx(sum(norm**2 for norm in norms) / 2, rel=1e-10)


def test_spectral_finds_the_norm_where_the_vector_of_ones_cannot() -> None:
    kernel = torch.tensor([[3.0, -3.0, 0.0], [0.1, 0.1, 0.1]], dtype=torch.float64)
    assert float(Spectral(coefficient=2.0)(RegulariserContext(kernels={"k": kernel}))) == pytest.approx(18, rel=1e-9)


def test_ten_iterations_come_near_the_norm_of_a_layer_as_it_is_initialised_and_never_above_it() -> None:
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
    kernel = drawn(3, 4).requires_grad_()
    value = L2(coefficient=0.25)(RegulariserContext(kernels={"a": kernel, "b": torch.full((2, 2), 3.0)}))
    assert float(value.detach()) == pytest.approx(0.25 * (float((kernel.detach() ** 2).sum()) + 36))
    torch.testing.assert_close(torch.autograd.grad(value, kernel)[0], 0.5 * kernel.detach())


@pytest.mark.parametrize("name", ["l2", "spectral"])
def test_a_model_without_kernels_has_nothing_to_be_regularised(name: str) -> None:
    assert float(build(name, {})(RegulariserContext())) == 0


def test_layer_mean_is_the_variance_of_the_units_and_its_gradient_leads_to_their_mean() -> None:
    p = simplex(5, 3).requires_grad_()
    value = LayerMean(coefficient=0.7)(seen_by_units({"site": p}))
    torch.testing.assert_close(value, 0.7 * p.var(0, correction=0).sum())
    (grad,) = torch.autograd.grad(value, p)
    torch.testing.assert_close(grad, 0.7 * 2 / 5 * (p - p.mean(0)).detach())


def seen_by_units(p: dict[str, Tensor]) -> RegulariserContext:
    names = ("relu", "tanh", "silu", "identity")
    originals = dict.fromkeys(p, "tanh")
    return RegulariserContext(
        p=p, functions={site: names[: part.shape[-1]] for site, part in p.items()}, originals=originals
    )


def test_layer_mean_is_zero_where_all_units_agree_and_where_there_is_only_one() -> None:
    row = simplex(3)
    penalty = LayerMean(coefficient=1.0)
    assert float(penalty(seen_by_units({"a": row}))) == 0
    assert float(penalty(seen_by_units({"a": row.expand(4, 2, 3)}))) < 1e-30


@pytest.mark.parametrize(("benchmark", "index"), [("original", 1), ("silu", 2)])
def test_delta_pulls_to_the_benchmark_function(benchmark: str, index: int) -> None:
    p = simplex(5, 3)
    value = LayerMean(coefficient=0.0, delta=2.0, benchmark=benchmark)(seen_by_units({"site": p}))
    by_hand = sum(2.0 / 5 * (float(p[i, k]) - (k == index)) ** 2 for i in range(5) for k in range(3))
    assert float(value) == pytest.approx(by_hand)
    vertex = torch.eye(3, dtype=torch.float64)[index].expand(5, 3)
    assert float(LayerMean(coefficient=1.0, delta=2.0, benchmark=benchmark)(seen_by_units({"site": vertex}))) == 0


def test_per_site_gives_every_layer_a_lambda_of_its_own() -> None:
    p = {"a": simplex(4, 3), "b": simplex(6, 3, seed=1)}
    alone = [float(LayerMean(coefficient=1.0)(seen_by_units({site: part}))) for site, part in p.items()]
    value = LayerMean(coefficient=0.5, per_site=(3.0, 0.1))(seen_by_units(p))
    assert float(value) == pytest.approx(0.5 * (3 * alone[0] + 0.1 * alone[1]))
    with pytest.raises(StudyError, match="per_site needs one entry for each of 2 sites, but got 3"):
        LayerMean(per_site=(1.0, 1.0, 1.0))(seen_by_units(p))


def test_benchmark_that_a_search_has_dropped_pulls_no_more() -> None:
    p = simplex(5, 2)
    seen = RegulariserContext(p={"a": p}, functions={"a": ("relu", "silu")}, originals={"a": "tanh"})
    assert float(LayerMean(coefficient=0.0, delta=1.0)(seen)) == 0


# ----------------------------------------------------------------------------------------------------------- sdarts


def no_slope(p):
    raise AssertionError("a random perturbation asks for no gradient")


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
    """It lies eps along the sign of the slope; renormalising after every step leaves it a little short of it."""
    p, slope = {"a": torch.full((3,), 1 / 3, dtype=torch.float64)}, torch.tensor([2.0, -1.0, -1.0], dtype=torch.float64)
    torch.manual_seed(1)
    moved = SDARTS(attack="pgd", start=0.1, end=0.1).perturb(p, lambda p: {"a": slope}, 0.5)["a"]
    corner = p["a"] + 0.1 * slope.sign()
    torch.testing.assert_close(moved, corner / corner.sum(), rtol=0, atol=1e-3)
    losses = [float(slope @ SDARTS(start=0.1, end=0.1).perturb(p, no_slope, 0.5)["a"]) for _ in range(50)]
    assert float(slope @ moved) > max(losses)


def test_pgd_asks_for_the_slope_once_a_step() -> None:
    asked: list[int] = []

    def slope(p):
        asked.append(1)
        return {site: torch.zeros_like(part) for site, part in p.items()}

    SDARTS(attack="pgd", steps=7).perturb({"a": simplex(4)}, slope, 0.0)
    assert len(asked) == 7


def test_rows_come_back_to_the_simplex_even_where_nothing_is_left() -> None:
    p = torch.tensor([[0.5, -0.1, 0.3], [-0.1, -0.02, -0.3], [1.4, 0.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([[0.625, 0, 0.375], [0, 1, 0], [1, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(on_simplex(p), expected)


# --------------------------------------------------------------------------------------------------- what is refused

SERVED = {
    "entropy": {"softmax", "ratio", "convex", "clip", "gumbel", "gumbel_hard", "dirichlet"},
    "beta_decay": {"softmax", "gumbel", "gumbel_hard"},
    "sdarts": {"softmax", "ratio", "convex", "clip"},
}


@pytest.mark.parametrize("name", NAMES)
def test_each_serves_the_normalisers_with_which_it_means_something_and_gives_its_reason_else(name: str) -> None:
    assert len(NORMALISERS) >= 9
    for normaliser in NORMALISERS.values():
        reason = build(name, {}).refusal(Setting(normaliser=normaliser, level="channel"))
        assert (reason is None) == (normaliser.name in SERVED.get(name, set(NORMALISERS.names())))
        assert reason is None or repr(normaliser.name) in reason


def test_layer_mean_is_refused_at_level_layer_and_without_its_benchmark() -> None:
    softmax = NORMALISERS.get("softmax")
    at_layer = Setting(normaliser=softmax, level="layer", functions=("relu", "tanh"), original="silu")
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
        ("layer_mean", {"coefficient": 0.0}, "coefficient must be above 0 where delta is 0"),
        ("layer_mean", {"per_site": 3}, "per_site must be a list of numbers, but got 3"),
        ("layer_mean", {"per_site": [1, -1]}, "per_site must hold numbers of at least 0"),
        ("sdarts", {"attack": "fgsm"}, "attack must be 'random' or 'pgd', but got 'fgsm'"),
        ("sdarts", {"end": 1.5}, "end must be at most 1, the largest mixture weight, but got 1.5"),
        ("sdarts", {"steps": 0}, "steps must be a whole number of at least 1, but got 0"),
    ],
)
def test_bad_options_are_told_in_one_line(name: str, options: dict, message: str) -> None:
    with pytest.raises((StudyError, UnknownName)) as caught:
        build(name, options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
