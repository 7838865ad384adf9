"""Regularisers in a search: hypergradients stay exact, reports comparable, and a perturbed step restores alpha."""

from __future__ import annotations

import copy
import math
from typing import ClassVar

import pytest
import torch
from bilevel_problems import batches, flat, relative_error, tensor_copies
from torch import Tensor, nn
from torch.nn import functional as F

from nasact.bilevel import HYPERGRADIENTS, STRATEGIES, SearchState, Strategy, SupernetProblem, build
from nasact.bilevel.differentiable_optimiser import inner_step
from nasact.bilevel.regularisers import Regulariser
from nasact.bilevel.regularisers.base import LossName, RegulariserContext, SearchSetting
from nasact.bilevel.regularisers.beta_decay import BetaDecay
from nasact.bilevel.regularisers.entropy import Entropy
from nasact.bilevel.regularisers.l2 import L2
from nasact.bilevel.regularisers.layer_mean import LayerMean
from nasact.bilevel.regularisers.penalised_loss import regulariser_context
from nasact.bilevel.regularisers.sdarts import SDARTS
from nasact.bilevel.regularisers.spectral import Spectral
from nasact.bilevel.snapshot import same_bits
from nasact.bilevel.strategies import alpha_moves_from, regularise
from nasact.bilevel.strategies.darts import DARTS
from nasact.bilevel.strategies.perturbed_step import perturbed_mixture_weights
from nasact.bilevel.strategies.steps import weight_step
from nasact.errors import Divergence, StudyError
from nasact.mixture import NORMALISERS
from nasact.supernet import Supernet, relax

SPACE = ("relu", "tanh", "silu", "identity")
MANY = (
    Entropy(coefficient=0.5, start=0.0),
    BetaDecay(coefficient=2.0),
    LayerMean(coefficient=1.0, delta=0.3),
    Spectral(coefficient=0.05),
    L2(coefficient=0.01),
)


class Coupled:
    """A penalty that is not registered. It couples w and alpha, so that it has a mixed second derivative."""

    name: ClassVar[str] = "coupled"
    source: ClassVar[str] = "this test"
    formula: ClassVar[str] = "sum p_1^2 sum W^4"
    target_loss: ClassVar[LossName] = "training"

    def refusal(self, setting: SearchSetting) -> str | None:
        return None

    def __call__(self, context: RegulariserContext) -> Tensor:
        fourth_powers = torch.stack([kernel.pow(4).sum() for kernel in context.kernels.values()]).sum()
        return fourth_powers * torch.stack([p[..., 1].square().sum() for p in context.p.values()]).sum()


def small_cnn(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2),
        nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3),
    )  # fmt: skip


def relaxed(dtype: torch.dtype = torch.float64, **options) -> Supernet:
    supernet = relax(small_cnn(), SPACE, example_input=torch.zeros(2, 1, 7, 7), **options).to(dtype)
    with torch.no_grad():
        for index, alpha in enumerate(supernet.arch_parameters()):
            alpha.add_(0.1 * torch.randn(alpha.shape, generator=torch.Generator().manual_seed(index)).to(dtype))
    supernet.project_()
    return supernet


def initial_state_of(
    strategy: Strategy, regularisers: tuple[Regulariser, ...] = (), *, progress: float = 0.5, **options
) -> SearchState:
    supernet = relaxed(**options)
    optimiser = torch.optim.SGD(supernet.weight_parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    state = strategy.init(supernet, optimiser, F.cross_entropy)
    regularise(strategy, state, regularisers)
    state.progress = progress
    return state


def penalised_loss(problem: SupernetProblem, loss_name: str, w, alpha) -> Tensor:
    """Return a loss with its penalties added to its value too."""
    plain = SupernetProblem(
        problem.supernet, problem.loss, problem.train, problem.val, problem.train_seed, problem.val_seed
    )
    loss = plain.train_loss(w, alpha) if loss_name == "training" else plain.val_loss(w, alpha)
    parameters = (*problem.supernet.weight_parameters(), *problem.supernet.arch_parameters())
    context = regulariser_context(
        problem.supernet, dict(zip(map(id, parameters), (*w, *alpha), strict=True)), problem.progress
    )
    return loss + sum(each(context) for each in problem.regularisers if each.target_loss == loss_name)


@pytest.fixture
def problem() -> SupernetProblem:
    supernet = relaxed(level="channel")
    return SupernetProblem.draw(supernet, F.cross_entropy, *batches(torch.float64), (*MANY, Coupled()), 0.5)


def test_losses_keep_their_values_and_have_the_gradients_of_the_total(problem: SupernetProblem) -> None:
    w, alpha = ([t.clone().requires_grad_() for t in part] for part in (problem.w, problem.alpha))
    plain = SupernetProblem(
        problem.supernet, problem.loss, problem.train, problem.val, problem.train_seed, problem.val_seed
    )
    for loss_name, loss, without in (
        ("training", problem.train_loss, plain.train_loss),
        ("validation", problem.val_loss, plain.val_loss),
    ):
        assert same_bits(loss(w, alpha), without(w, alpha))
        expected = torch.autograd.grad(penalised_loss(problem, loss_name, w, alpha), (*w, *alpha))
        found = torch.autograd.grad(loss(w, alpha), (*w, *alpha))
        assert relative_error(found, expected) < 1e-14
        assert relative_error(found, torch.autograd.grad(without(w, alpha), (*w, *alpha))) > 1e-2


@pytest.mark.parametrize("name", ["second_order", "finite_difference"])
def test_order_2_with_regularisers_equals_exact_unrolled(problem: SupernetProblem, name: str) -> None:
    supernet = problem.supernet
    optimiser = torch.optim.SGD(supernet.weight_parameters(), lr=0.1, momentum=0.9)
    inner = inner_step(optimiser, supernet.weight_parameters())
    found, oracle = (HYPERGRADIENTS.get(each)(problem, problem.w, problem.alpha, inner) for each in (name, "unrolled"))
    # relu has a kink, which the difference crosses
    assert relative_error(found.alpha, oracle.alpha) < (1e-9 if name == "second_order" else 1e-1)


def test_order_2_is_the_slope_of_the_penalised_validation_loss_after_a_penalised_step(problem: SupernetProblem) -> None:
    """Central differences of the whole step, with the penalties added to the values of the losses."""
    optimiser = torch.optim.SGD(problem.supernet.weight_parameters(), lr=0.1)
    inner, alpha = inner_step(optimiser, problem.supernet.weight_parameters()), problem.alpha
    found = HYPERGRADIENTS.get("second_order")(problem, problem.w, alpha, inner).alpha
    torch.manual_seed(2)
    directions = [torch.randn_like(a) for a in alpha]

    def after_step(step: float) -> float:
        shifted = tuple(a + step * d for a, d in zip(alpha, directions, strict=True))
        w = tuple(weight.clone().requires_grad_() for weight in problem.w)
        grads = torch.autograd.grad(penalised_loss(problem, "training", w, shifted), w)
        return float(penalised_loss(problem, "validation", inner(problem.w, grads), shifted).detach())

    slope = (after_step(1e-5) - after_step(-1e-5)) / 2e-5
    directional_derivative = sum(float((g * d).sum()) for g, d in zip(found, directions, strict=True))
    assert directional_derivative == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("name", STRATEGIES.names())
def test_every_strategy_uses_penalties_of_weights_and_of_alpha(name: str) -> None:
    assert len(STRATEGIES) >= 3
    strategy = build(name, {})
    options = {"normaliser": strategy.normalisers[0]} if strategy.normalisers else {}
    alpha_moves = alpha_moves_from(strategy) is not None
    penalties = (L2(), LayerMean(delta=0.5, benchmark="relu")) if alpha_moves else (L2(),)
    states = [initial_state_of(strategy, regularisers, **options) for regularisers in ((), penalties)]
    for state in states:
        torch.manual_seed(0)
        for progress in (0.1, 0.3, 0.5, 0.7, 0.9):  # some strategies have phases in which only w or only alpha moves
            state.progress = progress
            strategy.step(state, *batches(torch.float64))
    plain, regularised = (tensor_copies(state.supernet) for state in states)
    assert not same_bits(plain["model.0.weight"], regularised["model.0.weight"])
    for mixture, other in zip(*(state.supernet.mixtures().values() for state in states), strict=True):
        assert same_bits(mixture.alpha, other.alpha) != alpha_moves


@pytest.mark.parametrize(
    ("strategy", "loss"),
    [
        (DARTS(order=1), "val_loss"),  # the training loss is at the new alpha, which depends on the penalties
        (DARTS(update="simultaneous"), "train_loss"),  # the validation loss is after a penalised step
        (build("joint", {}), "train_loss"),
    ],
)
def test_reported_losses_do_not_include_penalties(strategy: Strategy, loss: str) -> None:
    reports = []
    for regularisers in ((), MANY):
        state = initial_state_of(strategy, regularisers, level="channel")
        torch.manual_seed(0)
        reports.append(getattr(strategy.step(state, *batches(torch.float64)), loss))
    assert reports[0] == reports[1]


def test_without_regularisers_the_loss_is_not_changed() -> None:
    """The same tensor object is returned."""
    state = initial_state_of(DARTS())
    assert state.regularisers == ()
    calls: list[Tensor] = []

    def loss(output: Tensor, y: Tensor) -> Tensor:
        calls.append(F.cross_entropy(output, y))
        return calls[-1]

    train, val = batches(torch.float64)
    problem = SupernetProblem.draw(state.supernet, loss, train, val)
    assert problem.val_loss(problem.w, problem.alpha) is calls[-1]


def test_a_penalty_of_nan_raises_divergence_before_anything_moves() -> None:
    class Broken(Coupled):
        name = "broken"

        def __call__(self, context: RegulariserContext) -> Tensor:
            return super().__call__(context) * (math.nan if context.progress > 0 else 1)

    state = initial_state_of(DARTS(), (Broken(),))
    before = tensor_copies(state.supernet)
    with pytest.raises(Divergence, match="the regulariser 'broken' is nan"):
        DARTS().step(state, *batches(torch.float64))
    assert all(same_bits(tensor, before[name]) for name, tensor in tensor_copies(state.supernet).items())


def test_kernels_are_the_weights_of_convolutions_and_dense_layers_once_with_outputs_first() -> None:
    tied = nn.Linear(6, 6)
    model = nn.Sequential(
        nn.Embedding(9, 6), nn.LayerNorm((2, 6)), tied, nn.ReLU(), nn.Linear(6, 6), nn.PReLU(6),
        nn.Unflatten(1, (2, 1)), nn.ConvTranspose1d(2, 3, 2), nn.ReLU(), nn.BatchNorm1d(3), nn.Conv1d(3, 4, 2),
    )  # fmt: skip
    model[4].weight = tied.weight
    model[10].requires_grad_(False)
    context = regulariser_context(relax(model, ("relu",)), {}, 0.0)
    assert {name: tuple(kernel.shape) for name, kernel in context.kernels.items()} == {
        "model.2.weight": (6, 6),
        "model.7.weight": (3, 2, 2),
    }


def test_the_entropy_penalty_alone_drives_a_search_to_a_decision() -> None:
    """Joint search on noise: only with the penalty do the mixture weights end near a vertex."""
    ends = []
    for regularisers in ((), (Entropy(coefficient=5.0, start=0.0),)):
        strategy = build("joint", {"lr": 0.1})
        state = initial_state_of(strategy, regularisers)
        for step in range(60):
            state.progress = step / 60
            strategy.step(state, *batches(torch.float64, seed=step))
        ends.append(sum(state.supernet.entropy().values()) / 2)
    assert ends[1] < 0.2 < ends[0]


# ----------------------------------------------------------------------------------------------------------- sdarts


@pytest.mark.parametrize("attack", ["random", "pgd"])
@pytest.mark.parametrize("normaliser", [name for name, record in NORMALISERS.items() if record.on_simplex])
def test_a_perturbed_step_changes_the_weights_differently_and_does_not_change_a_bit_of_alpha(
    attack: str, normaliser: str
) -> None:
    ends = []
    for regularisers in ((), (SDARTS(attack=attack),)):
        state = initial_state_of(DARTS(), regularisers, level="channel", normaliser=normaliser)
        before = tensor_copies(state.supernet)
        torch.manual_seed(0)
        weight_step(state, batches(torch.float64)[0])
        after = tensor_copies(state.supernet)
        alphas = {name for name in after if name.endswith("alpha")}
        assert len(alphas) == 2
        assert all(same_bits(before[name], after[name]) for name in alphas)
        assert all(mixture.normaliser_name == normaliser for mixture in state.supernet.mixtures().values())
        assert int(after["model.1.num_batches_tracked"]) == 1, "the passes of the attack do not change the buffers"
        ends.append(after)
    assert not torch.allclose(ends[0]["model.0.weight"], ends[1]["model.0.weight"], rtol=1e-6)


def test_the_weight_step_uses_perturbed_mixture_weights_on_the_simplex_near_p() -> None:
    state = initial_state_of(DARTS(), (SDARTS(start=0.05, end=0.05),), level="channel")
    before = {site: mixture.weights() for site, mixture in state.supernet.mixtures().items()}
    with perturbed_mixture_weights(state, batches(torch.float64)[0]):
        for site, mixture in state.supernet.mixtures().items():
            p = mixture.weights()
            assert float(p.min()) >= 0
            torch.testing.assert_close(p.sum(-1), torch.ones(p.shape[:-1], dtype=p.dtype))
            assert 0 < float((p - before[site]).abs().max()) < 0.05 * 2
    assert all(same_bits(mixture.weights(), before[site]) for site, mixture in state.supernet.mixtures().items())


def test_alpha_is_restored_if_the_step_fails() -> None:
    state = initial_state_of(DARTS(), (SDARTS(),))
    before = tensor_copies(state.supernet)
    state.loss = lambda output, y: F.cross_entropy(output, y) * math.nan
    with pytest.raises(Divergence):
        weight_step(state, batches(torch.float64)[0])
    after = tensor_copies(state.supernet)
    assert all(same_bits(before[name], after[name]) for name in after if name.endswith("alpha"))
    assert all(mixture.normaliser_name == "softmax" for mixture in state.supernet.mixtures().values())


def test_pgd_raises_the_training_loss_more_than_a_random_perturbation() -> None:
    train, _ = batches(torch.float64, size=64)
    losses = {}
    for attack in ("random", "pgd"):
        state = initial_state_of(DARTS(), (SDARTS(attack=attack, start=0.3),), progress=0.0)
        state.supernet.model[3].p = 0.0  # with dropout the masks of the attack would differ from those of the step
        found = []
        for seed in range(10):
            torch.manual_seed(seed)
            with perturbed_mixture_weights(state, train):
                found.append(F.cross_entropy(copy.deepcopy(state.supernet)(train.x), train.y).item())
        losses[attack] = found
    assert min(losses["pgd"]) > sum(losses["random"]) / 10
    assert sum(losses["pgd"]) > sum(losses["random"])


def test_the_gradient_of_alpha_does_not_use_the_perturbation() -> None:
    grads = []
    for regularisers in ((), (SDARTS(),)):
        state = initial_state_of(DARTS(), regularisers)
        torch.manual_seed(0)
        grads.append(flat(DARTS().alpha_gradient(state, *batches(torch.float64)).alpha))
    assert same_bits(*grads)


@pytest.mark.parametrize("attack", ["random", "pgd"])
def test_dropped_candidates_stay_at_zero_in_a_perturbed_step_and_penalties_do_not_get_them(attack: str) -> None:
    state = initial_state_of(DARTS(), (SDARTS(attack=attack), *MANY), level="channel")
    for mixture in state.supernet.mixtures().values():
        mixture.drop(["identity"])
    with perturbed_mixture_weights(state, batches(torch.float64)[0]):
        for mixture in state.supernet.mixtures().values():
            assert bool((mixture.weights()[..., 3] == 0).all())
            assert bool((mixture.weights()[..., :3] > 0).any())
    context = regulariser_context(state.supernet, {}, 0.0)
    assert set(context.functions.values()) == {("relu", "tanh", "silu")}
    assert [part.shape[-1] for part in (*context.p.values(), *context.alphas.values())] == [3] * 4
    DARTS().step(state, *batches(torch.float64))


# --------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("strategy", "regularisers", "options", "message"),
    [
        (
            DARTS(),
            (Entropy(),),
            {"normaliser": "free"},
            "site '2': regulariser 'entropy' cannot .*negative",
        ),
        (DARTS(), (Entropy(),), {"normaliser": "sigmoid"}, "do not sum to one"),
        (DARTS(), (BetaDecay(),), {"normaliser": "convex"}, "logits of a softmax"),
        (DARTS(), (SDARTS(),), {"normaliser": "gumbel"}, "onto the simplex"),
        (build("joint", {}), (SDARTS(),), {}, "the strategy updates weights and alpha in one step"),
        (DARTS(update="simultaneous"), (SDARTS(),), {}, "the strategy updates weights and alpha in one step"),
        (build("random", {}), (Entropy(),), {}, "alpha never moves"),
        (DARTS(), (LayerMean(),), {}, "its own mean"),
        (DARTS(), (LayerMean(delta=1.0, benchmark="elu"),), {}, "'elu' is not among the candidates"),
        (DARTS(), (LayerMean(per_site=(1.0,)),), {"level": "channel"}, "one entry for each of 2 sites, but got 1"),
        (DARTS(), (L2(), L2(coefficient=1.0)), {}, "regulariser 'l2' is given twice"),
    ],
)
def test_a_regulariser_without_meaning_is_refused_with_the_reason(
    strategy, regularisers, options, message: str
) -> None:
    with pytest.raises(StudyError, match=message):
        initial_state_of(strategy, regularisers, **options)
