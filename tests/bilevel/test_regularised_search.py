"""Regularisers in a search: hypergradients stay exact, reports stay comparable, a perturbed step leaves no trace."""

from __future__ import annotations

import copy
import math
from typing import ClassVar

import pytest
import torch
from bilevel_problems import batches, error, flat, numbers
from torch import Tensor, nn
from torch.nn import functional as F

from nasact.bilevel import DARTS, HYPERGRADIENTS, STRATEGIES, SearchState, Strategy, SupernetProblem, build, inner_step
from nasact.bilevel.regularisers import (
    L2,
    SDARTS,
    BetaDecay,
    Entropy,
    LayerMean,
    Regulariser,
    RegulariserContext,
    Setting,
    Spectral,
)
from nasact.bilevel.regularisers.penalised_loss import regulariser_context
from nasact.bilevel.snapshot import same_bits
from nasact.bilevel.strategies import perturbed_step, regularise
from nasact.bilevel.strategies.alternating import weight_step
from nasact.errors import Divergence, StudyError
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
    """A penalty that no registry holds: it couples w and alpha, so that the mixed second derivative sees it."""

    name: ClassVar[str] = "coupled"
    source: ClassVar[str] = "this test"
    formula: ClassVar[str] = "sum p_1^2 sum W^4"
    on: ClassVar[str] = "training"

    def refusal(self, setting: Setting) -> str | None:
        return None

    def __call__(self, seen: RegulariserContext) -> Tensor:
        heavy = torch.stack([kernel.pow(4).sum() for kernel in seen.kernels.values()]).sum()
        return heavy * torch.stack([p[..., 1].square().sum() for p in seen.p.values()]).sum()


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


def start(
    strategy: Strategy, regularisers: tuple[Regulariser, ...] = (), *, progress: float = 0.5, **options
) -> SearchState:
    supernet = relaxed(**options)
    optimiser = torch.optim.SGD(supernet.weight_parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    state = strategy.init(supernet, optimiser, F.cross_entropy)
    regularise(strategy, state, regularisers)
    state.progress = progress
    return state


def total(problem: SupernetProblem, on: str, w, alpha) -> Tensor:
    """A loss with its penalties added as numbers, by the book."""
    plain = SupernetProblem(
        problem.supernet, problem.loss, problem.train, problem.val, problem.train_seed, problem.val_seed
    )
    loss = plain.train_loss(w, alpha) if on == "training" else plain.val_loss(w, alpha)
    parameters = (*problem.supernet.weight_parameters(), *problem.supernet.arch_parameters())
    seen = regulariser_context(
        problem.supernet, dict(zip(map(id, parameters), (*w, *alpha), strict=True)), problem.progress
    )
    return loss + sum(each(seen) for each in problem.regularisers if each.on == on)


@pytest.fixture
def problem() -> SupernetProblem:
    supernet = relaxed(level="channel")
    return SupernetProblem.draw(supernet, F.cross_entropy, *batches(torch.float64), (*MANY, Coupled()), 0.5)


def test_losses_keep_their_values_and_have_the_gradients_of_the_total(problem: SupernetProblem) -> None:
    w, alpha = ([t.clone().requires_grad_() for t in part] for part in (problem.w, problem.alpha))
    bare = SupernetProblem(
        problem.supernet, problem.loss, problem.train, problem.val, problem.train_seed, problem.val_seed
    )
    for on, loss, without in (
        ("training", problem.train_loss, bare.train_loss),
        ("validation", problem.val_loss, bare.val_loss),
    ):
        assert same_bits(loss(w, alpha), without(w, alpha))
        expected = torch.autograd.grad(total(problem, on, w, alpha), (*w, *alpha))
        found = torch.autograd.grad(loss(w, alpha), (*w, *alpha))
        assert error(found, expected) < 1e-14
        assert error(found, torch.autograd.grad(without(w, alpha), (*w, *alpha))) > 1e-2


@pytest.mark.parametrize("name", ["second_order", "finite_difference"])
def test_order_2_with_regularisers_on_equals_exact_unrolled(problem: SupernetProblem, name: str) -> None:
    supernet = problem.supernet
    optimiser = torch.optim.SGD(supernet.weight_parameters(), lr=0.1, momentum=0.9)
    inner = inner_step(optimiser, supernet.weight_parameters())
    found, oracle = (HYPERGRADIENTS.get(each)(problem, problem.w, problem.alpha, inner) for each in (name, "unrolled"))
    # relu has a kink, which the difference steps across
    assert error(found.alpha, oracle.alpha) < (1e-9 if name == "second_order" else 1e-1)


def test_order_2_is_the_slope_of_the_penalised_validation_loss_after_a_penalised_step(problem: SupernetProblem) -> None:
    """Central differences of the whole step, with the penalties added as numbers."""
    optimiser = torch.optim.SGD(problem.supernet.weight_parameters(), lr=0.1)
    inner, alpha = inner_step(optimiser, problem.supernet.weight_parameters()), problem.alpha
    found = HYPERGRADIENTS.get("second_order")(problem, problem.w, alpha, inner).alpha
    torch.manual_seed(2)
    directions = [torch.randn_like(a) for a in alpha]

    def after_step(step: float) -> float:
        moved = tuple(a + step * d for a, d in zip(alpha, directions, strict=True))
        w = tuple(weight.clone().requires_grad_() for weight in problem.w)
        grads = torch.autograd.grad(total(problem, "training", w, moved), w)
        return float(total(problem, "validation", inner(problem.w, grads), moved).detach())

    slope = (after_step(1e-5) - after_step(-1e-5)) / 2e-5
    by_product = sum(float((g * d).sum()) for g, d in zip(found, directions, strict=True))
    assert by_product == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("name", STRATEGIES.names())
def test_every_strategy_sees_penalties_on_weights_and_on_alpha(name: str) -> None:
    assert len(STRATEGIES) >= 3
    strategy = build(name, {})
    options = {"normaliser": strategy.normalisers[0]} if strategy.normalisers else {}
    moves = name != "random"
    given = (L2(), LayerMean(delta=0.5, benchmark="relu")) if moves else (L2(),)
    states = [start(strategy, regularisers, **options) for regularisers in ((), given)]
    for state in states:
        torch.manual_seed(0)
        for progress in (0.1, 0.3, 0.5, 0.7, 0.9):  # some have phases in which only w, or only alpha, moves
            state.progress = progress
            strategy.step(state, *batches(torch.float64))
    plain, regularised = (numbers(state.supernet) for state in states)
    assert not same_bits(plain["model.0.weight"], regularised["model.0.weight"])
    for mixture, other in zip(*(state.supernet.mixtures().values() for state in states), strict=True):
        assert same_bits(mixture.alpha, other.alpha) != moves


@pytest.mark.parametrize(
    ("strategy", "loss"),
    [
        (DARTS(order=1), "val_loss"),  # its weight step is at the new alpha, which the penalties have moved
        (DARTS(update="simultaneous"), "train_loss"),  # its validation loss is after a penalised step
        (build("joint", {}), "train_loss"),
    ],
)
def test_reports_are_without_the_penalties(strategy: Strategy, loss: str) -> None:
    reports = []
    for regularisers in ((), MANY):
        state = start(strategy, regularisers, level="channel")
        torch.manual_seed(0)
        reports.append(getattr(strategy.step(state, *batches(torch.float64)), loss))
    assert reports[0] == reports[1]


def test_a_search_without_regularisers_is_the_search_it_was_to_the_bit() -> None:
    """Its losses are not touched: the tensors themselves come back."""
    state = start(DARTS())
    assert state.regularisers == ()
    calls: list[Tensor] = []

    def loss(output: Tensor, y: Tensor) -> Tensor:
        calls.append(F.cross_entropy(output, y))
        return calls[-1]

    train, val = batches(torch.float64)
    problem = SupernetProblem.draw(state.supernet, loss, train, val)
    assert problem.val_loss(problem.w, problem.alpha) is calls[-1]


def test_penalty_that_is_no_number_ends_the_search_before_anything_moves() -> None:
    class Broken(Coupled):
        name = "broken"

        def __call__(self, seen: RegulariserContext) -> Tensor:
            return super().__call__(seen) * (math.nan if seen.progress > 0 else 1)

    state = start(DARTS(), (Broken(),))
    before = numbers(state.supernet)
    with pytest.raises(Divergence, match="the regulariser 'broken' is nan"):
        DARTS().step(state, *batches(torch.float64))
    assert all(same_bits(tensor, before[name]) for name, tensor in numbers(state.supernet).items())


def test_kernels_are_the_weights_of_convolutions_and_dense_layers_once_with_out_first() -> None:
    tied = nn.Linear(6, 6)
    model = nn.Sequential(
        nn.Embedding(9, 6), nn.LayerNorm((2, 6)), tied, nn.ReLU(), nn.Linear(6, 6), nn.PReLU(6),
        nn.Unflatten(1, (2, 1)), nn.ConvTranspose1d(2, 3, 2), nn.ReLU(), nn.BatchNorm1d(3), nn.Conv1d(3, 4, 2),
    )  # fmt: skip
    model[4].weight = tied.weight
    model[10].requires_grad_(False)
    seen = regulariser_context(relax(model, ("relu",)), {}, 0.0)
    assert {name: tuple(kernel.shape) for name, kernel in seen.kernels.items()} == {
        "model.2.weight": (6, 6),
        "model.7.weight": (3, 2, 2),
    }


def test_entropy_alone_makes_a_search_decide() -> None:
    """Joint search on noise: with the regulariser the weights end near a vertex, without it they do not."""
    ends = []
    for regularisers in ((), (Entropy(coefficient=5.0, start=0.0),)):
        strategy = build("joint", {"lr": 0.1})
        state = start(strategy, regularisers)
        for step in range(60):
            state.progress = step / 60
            strategy.step(state, *batches(torch.float64, seed=step))
        ends.append(sum(state.supernet.entropy().values()) / 2)
    assert ends[1] < 0.2 < ends[0]


# ----------------------------------------------------------------------------------------------------------- sdarts


@pytest.mark.parametrize("attack", ["random", "pgd"])
@pytest.mark.parametrize("normaliser", ["softmax", "ratio", "convex", "clip"])
def test_perturbed_step_moves_the_weights_otherwise_and_leaves_alpha_to_the_bit(attack: str, normaliser: str) -> None:
    ends = []
    for regularisers in ((), (SDARTS(attack=attack),)):
        state = start(DARTS(), regularisers, level="channel", normaliser=normaliser)
        before = numbers(state.supernet)
        torch.manual_seed(0)
        weight_step(state, batches(torch.float64)[0])
        after = numbers(state.supernet)
        alphas = {name for name in after if name.endswith("alpha")}
        assert len(alphas) == 2
        assert all(same_bits(before[name], after[name]) for name in alphas)
        assert all(mixture.normaliser_name == normaliser for mixture in state.supernet.mixtures().values())
        assert int(after["model.1.num_batches_tracked"]) == 1, "the attack's passes leave no trace in the buffers"
        ends.append(after)
    assert not torch.allclose(ends[0]["model.0.weight"], ends[1]["model.0.weight"], rtol=1e-6)


def test_weight_step_sees_perturbed_weights_on_the_simplex_within_reach() -> None:
    state = start(DARTS(), (SDARTS(start=0.05, end=0.05),), level="channel")
    before = {site: mixture.weights() for site, mixture in state.supernet.mixtures().items()}
    with perturbed_step.perturbed(state, batches(torch.float64)[0]):
        for site, mixture in state.supernet.mixtures().items():
            p = mixture.weights()
            assert float(p.min()) >= 0
            torch.testing.assert_close(p.sum(-1), torch.ones(p.shape[:-1], dtype=p.dtype))
            assert 0 < float((p - before[site]).abs().max()) < 0.05 * 2
    assert all(same_bits(mixture.weights(), before[site]) for site, mixture in state.supernet.mixtures().items())


def test_alpha_is_put_back_where_the_step_fails() -> None:
    state = start(DARTS(), (SDARTS(),))
    before = numbers(state.supernet)
    state.loss = lambda output, y: F.cross_entropy(output, y) * math.nan
    with pytest.raises(Divergence):
        weight_step(state, batches(torch.float64)[0])
    after = numbers(state.supernet)
    assert all(same_bits(before[name], after[name]) for name in after if name.endswith("alpha"))
    assert all(mixture.normaliser_name == "softmax" for mixture in state.supernet.mixtures().values())


def test_pgd_raises_the_training_loss_more_than_random_does() -> None:
    train, _ = batches(torch.float64, size=64)
    losses = {}
    for attack in ("random", "pgd"):
        state = start(DARTS(), (SDARTS(attack=attack, start=0.3),), progress=0.0)
        state.supernet.model[3].p = 0.0  # dropout draws other masks in the attack than in the step
        found = []
        for seed in range(10):
            torch.manual_seed(seed)
            with perturbed_step.perturbed(state, train):
                found.append(F.cross_entropy(copy.deepcopy(state.supernet)(train.x), train.y).item())
        losses[attack] = found
    assert min(losses["pgd"]) > sum(losses["random"]) / 10
    assert sum(losses["pgd"]) > sum(losses["random"])


def test_alphas_own_step_sees_no_perturbation() -> None:
    grads = []
    for regularisers in ((), (SDARTS(),)):
        state = start(DARTS(), regularisers)
        torch.manual_seed(0)
        grads.append(flat(DARTS().alpha_gradient(state, *batches(torch.float64)).alpha))
    assert same_bits(*grads)


@pytest.mark.parametrize("attack", ["random", "pgd"])
def test_dropped_candidates_stay_at_zero_in_a_perturbed_step_and_unseen_by_penalties(attack: str) -> None:
    state = start(DARTS(), (SDARTS(attack=attack), *MANY), level="channel")
    for mixture in state.supernet.mixtures().values():
        mixture.drop(["identity"])
    with perturbed_step.perturbed(state, batches(torch.float64)[0]):
        for mixture in state.supernet.mixtures().values():
            assert bool((mixture.weights()[..., 3] == 0).all())
            assert bool((mixture.weights()[..., :3] > 0).any())
    seen = regulariser_context(state.supernet, {}, 0.0)
    assert set(seen.functions.values()) == {("relu", "tanh", "silu")}
    assert [part.shape[-1] for part in (*seen.p.values(), *seen.alphas.values())] == [3] * 4
    DARTS().step(state, *batches(torch.float64))


# --------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("strategy", "regularisers", "options", "message"),
    [
        (DARTS(), (Entropy(),), {"normaliser": "free"}, "site '2': regulariser 'entropy' cannot serve: .*negative"),
        (DARTS(), (Entropy(),), {"normaliser": "sigmoid"}, "do not sum to one"),
        (DARTS(), (BetaDecay(),), {"normaliser": "convex"}, "logits of a softmax"),
        (DARTS(), (SDARTS(),), {"normaliser": "gumbel"}, "onto the simplex"),
        (build("joint", {}), (SDARTS(),), {}, "the strategy takes none"),
        (DARTS(update="simultaneous"), (SDARTS(),), {}, "the strategy takes none"),
        (build("random", {}), (Entropy(),), {}, "alpha never moves"),
        (DARTS(), (LayerMean(),), {}, "its own mean"),
        (DARTS(), (LayerMean(delta=1.0, benchmark="elu"),), {}, "'elu' is not among the candidates"),
        (DARTS(), (LayerMean(per_site=(1.0,)),), {"level": "channel"}, "one entry for each of 2 sites, but got 1"),
        (DARTS(), (L2(), L2(coefficient=1.0)), {}, "regulariser 'l2' is given twice"),
    ],
)
def test_what_would_mean_nothing_is_refused_with_the_reason(strategy, regularisers, options, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        start(strategy, regularisers, **options)
