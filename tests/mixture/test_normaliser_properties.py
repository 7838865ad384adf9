"""The properties that a normaliser's record states, measured on its weights: a new normaliser needs no line here."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nasact.mixture import NORMALISERS, Normaliser

EVERY_NORMALISER = pytest.mark.parametrize("normaliser", NORMALISERS.values(), ids=NORMALISERS.names())
PASSES = 8


def feasible_alphas(normaliser: Normaliser, rows: int = 50, k: int = 4) -> Tensor:
    alpha = torch.randn(rows, k, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return alpha if normaliser.project is None else normaliser.project(alpha)


def weights(normaliser: Normaliser, alpha: Tensor, temperature: float = 1.0, *, training: bool) -> Tensor:
    return normaliser.weights(alpha, torch.tensor(temperature, dtype=alpha.dtype), training)


def training_passes(normaliser: Normaliser, alpha: Tensor, temperature: float = 1.0) -> list[Tensor]:
    torch.manual_seed(0)
    return [weights(normaliser, alpha, temperature, training=True) for _ in range(PASSES)]


def test_every_property_is_measured_on_normalisers_with_and_without_it() -> None:
    assert len(NORMALISERS) >= 11
    for name in (
        "stochastic", "draws_one", "logits", "independent_gates", "tempered", "function_of_alpha_over_t", "on_simplex",
    ):  # fmt: skip
        assert {getattr(normaliser, name) for normaliser in NORMALISERS.values()} == {True, False}, name


@EVERY_NORMALISER
def test_only_a_stochastic_normaliser_has_other_weights_in_training_than_in_evaluation(normaliser: Normaliser) -> None:
    alpha = feasible_alphas(normaliser)
    evaluation = weights(normaliser, alpha, training=False)
    same = [torch.equal(p, evaluation) for p in training_passes(normaliser, alpha)]
    assert same == [not normaliser.stochastic] * PASSES


@EVERY_NORMALISER
def test_only_a_normaliser_that_draws_one_function_has_one_hot_weights_in_training(normaliser: Normaliser) -> None:
    p = torch.cat(training_passes(normaliser, feasible_alphas(normaliser)))
    one_hot = bool(((p == 0) | (p == 1)).all()) and bool((p.sum(-1) == 1).all())
    assert one_hot == normaliser.draws_one


@EVERY_NORMALISER
def test_weights_are_on_the_simplex_and_the_same_in_training_if_the_record_says_so(normaliser: Normaliser) -> None:
    alpha = feasible_alphas(normaliser)
    passes = [weights(normaliser, alpha, training=False), *training_passes(normaliser, alpha)]
    on_simplex = all(bool((p >= 0).all()) and bool(((p.sum(-1) - 1).abs() < 1e-9).all()) for p in passes)
    assert (on_simplex and all(torch.equal(p, passes[0]) for p in passes)) == normaliser.on_simplex


@EVERY_NORMALISER
def test_alphas_are_logits_if_log_weights_are_alpha_up_to_a_constant_per_row(normaliser: Normaliser) -> None:
    alpha = feasible_alphas(normaliser)
    log_p = weights(normaliser, alpha, training=False).clamp_min(0).log()
    offset = log_p - alpha
    logits = bool(torch.isfinite(offset).all()) and bool(((offset - offset[:, :1]).abs() < 1e-9).all())
    assert logits == normaliser.logits


@EVERY_NORMALISER
def test_the_weight_of_an_independent_gate_does_not_depend_on_the_other_alphas(normaliser: Normaliser) -> None:
    alpha = feasible_alphas(normaliser)
    changed = torch.cat([alpha[:, :1], alpha[:, 1:].flip(0)], -1)
    first, again = (weights(normaliser, each, training=False) for each in (alpha, changed))
    gates = bool(((first > 0) & (first < 1)).all()) and torch.equal(first[:, 0], again[:, 0])
    assert gates == normaliser.independent_gates


@EVERY_NORMALISER
def test_only_tempered_weights_and_gradients_depend_on_the_temperature(normaliser: Normaliser) -> None:
    """A one-hot draw itself does not depend on the temperature, but its gradient does."""

    def pass_at(temperature: float, training: bool) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        alpha = feasible_alphas(normaliser).requires_grad_()
        p = weights(normaliser, alpha, temperature, training=training)
        return p.detach(), torch.autograd.grad(p[:, 0].sum(), alpha)[0]

    hot, cold = ((*pass_at(t, training=True), *pass_at(t, training=False)) for t in (1.0, 0.1))
    assert normaliser.tempered != all(torch.equal(a, b) for a, b in zip(hot, cold, strict=True))


@EVERY_NORMALISER
def test_the_temperature_only_divides_alpha_if_the_record_says_so(normaliser: Normaliser) -> None:
    alpha = feasible_alphas(normaliser)

    def passes(alpha: Tensor, temperature: float) -> list[Tensor]:
        return [
            weights(normaliser, alpha, temperature, training=False),
            *training_passes(normaliser, alpha, temperature),
        ]

    divides = all(
        torch.allclose(a, b, rtol=1e-12, atol=0)
        for a, b in zip(passes(alpha, 0.2), passes(alpha / 0.2, 1.0), strict=True)
    )
    assert (divides and normaliser.tempered) == normaliser.function_of_alpha_over_t
