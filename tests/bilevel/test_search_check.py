"""The check at the start of a search finds an alpha that does not move, and restores the search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from bilevel_problems import (
    OPTIMISERS,
    TinyMixture,
    TinySupernet,
    batches,
    normaliser_for,
    tensor_copies,
    tiny_supernet,
)
from torch.nn import functional as F

from nasact.bilevel import STRATEGIES, SearchState, Strategy, build, check_search_moves, weight_step
from nasact.bilevel.snapshot import same_bits
from nasact.bilevel.strategies import alpha_moves_from
from nasact.bilevel.strategies.darts import DARTS
from nasact.bilevel.strategies.joint import Joint
from nasact.errors import Divergence, SurgeryError

CASES = {**{name: build(name, {}) for name in STRATEGIES.names()}, "darts_order_1": DARTS(order=1)}
ALL = pytest.mark.parametrize("strategy", CASES.values(), ids=CASES)
MOVING = {name: strategy for name, strategy in CASES.items() if alpha_moves_from(strategy) is not None}


def test_the_control_never_moves_alpha_and_most_strategies_do() -> None:
    assert "random" not in MOVING
    assert len(MOVING) >= 11


def initial_state_of(
    strategy: Strategy, supernet: TinySupernet | None = None, optimiser: str = "sgd_momentum"
) -> SearchState:
    supernet = tiny_supernet(normaliser=normaliser_for(strategy)) if supernet is None else supernet
    return strategy.init(supernet, OPTIMISERS[optimiser](supernet.weight_parameters()), F.cross_entropy)


def copied_state(state: SearchState) -> dict[str, object]:
    """Return a copy of everything that the check must restore."""
    optimisers = (state.weight_optimiser, state.alpha_optimiser)
    return {
        "tensors": tensor_copies(state.supernet),
        "objects": [id(t) for t in (*state.supernet.parameters(), *state.supernet.buffers())],
        "grads": [None if p.grad is None else p.grad.clone() for p in state.supernet.parameters()],
        "modes": [module.training for module in state.supernet.modules()],
        "memory": [
            {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in memory.items()}
            for optimiser in optimisers
            for memory in optimiser.state.values()
        ],
        "groups": [{k: v for k, v in g.items() if k != "params"} for o in optimisers for g in o.param_groups],
        "step": state.step,
        "random": torch.get_rng_state(),
    }


@ALL
@pytest.mark.parametrize("warm", [0, 2])
@pytest.mark.parametrize("optimiser", ["sgd_momentum", "adam"])
def test_a_correct_search_passes_and_is_restored_exactly(strategy: Strategy, warm: int, optimiser: str) -> None:
    state = initial_state_of(strategy, optimiser=optimiser)
    for _ in range(warm):
        strategy.step(state, *batches())
    state.supernet.eval()
    before = copied_state(state)
    check_search_moves(strategy, state, *batches())
    torch.testing.assert_close(copied_state(state), before, rtol=0, atol=0)
    assert all(same_bits(t, before["tensors"][name]) for name, t in tensor_copies(state.supernet).items())


@ALL
def test_a_search_after_the_check_equals_the_search_without_it(strategy: Strategy) -> None:
    ends = []
    for checked in (False, True):
        state = initial_state_of(strategy)
        torch.manual_seed(2)
        if checked:
            check_search_moves(strategy, state, *batches())
        ends.append([strategy.step(state, *batches()) for _ in range(2)])
    assert ends[0] == ends[1]


@ALL
def test_alpha_that_does_not_reach_the_loss_is_named_by_site(strategy: Strategy) -> None:
    state = initial_state_of(strategy)
    state.supernet.act2.uses_alpha = False
    before = copied_state(state)
    with pytest.raises(SurgeryError, match="site 'act2': its alpha got no gradient"):
        check_search_moves(strategy, state, *batches())
    torch.testing.assert_close(copied_state(state), before, rtol=0, atol=0)


@ALL
def test_alpha_that_is_in_no_optimiser_is_named_by_site(strategy: Strategy) -> None:
    state = initial_state_of(strategy)
    state.alpha_optimiser = torch.optim.Adam(state.supernet.arch_parameters()[:1], lr=0.1)
    with pytest.raises(SurgeryError, match="site 'act2': its alpha is not in the alpha optimiser"):
        check_search_moves(strategy, state, *batches())


@pytest.mark.parametrize("strategy", MOVING.values(), ids=MOVING)
def test_alpha_that_does_not_move_is_found(strategy: Strategy) -> None:
    state = initial_state_of(strategy)
    state.supernet.project_()
    state.alpha_optimiser.step = lambda: None
    with pytest.raises(SurgeryError, match="no alpha moved in a step"):
        check_search_moves(strategy, state, *batches())


@ALL
def test_alpha_at_the_border_of_its_feasible_set_passes(strategy: Strategy) -> None:
    """At a vertex a projection may undo the first step: such a search is correct."""
    state = initial_state_of(strategy)
    vertices = [alpha.detach().clone() for alpha in state.supernet.arch_parameters()]

    @torch.no_grad()
    def project_() -> None:
        for alpha, vertex in zip(state.supernet.arch_parameters(), vertices, strict=True):
            alpha.copy_(vertex)

    state.supernet.project_ = project_
    check_search_moves(strategy, state, *batches())


@ALL
def test_last_layer_that_starts_at_zero_passes(strategy: Strategy) -> None:
    """As in vision transformers: before the first step the other layers get no gradient."""
    state = initial_state_of(strategy)
    torch.nn.init.zeros_(state.supernet.head.weight)
    check_search_moves(strategy, state, *batches())


@ALL
def test_site_with_a_single_candidate_has_nothing_to_move(strategy: Strategy) -> None:
    check_search_moves(
        strategy,
        initial_state_of(strategy, tiny_supernet((torch.tanh,), normaliser=normaliser_for(strategy))),
        *batches(),
    )


@ALL
def test_divergence_in_the_check_restores_the_search_too(strategy: Strategy) -> None:
    state = initial_state_of(strategy)
    state.loss = lambda out, y: F.cross_entropy(out, y) * float("nan")
    before = copied_state(state)
    with pytest.raises(Divergence):
        check_search_moves(strategy, state, *batches())
    torch.testing.assert_close(copied_state(state), before, rtol=0, atol=0)


@dataclass(frozen=True, kw_only=True)
class ChangesTheSearch(Joint):
    """A hypergradient that does not restore the tensor that it changed."""

    changes: str = "bn1.running_mean"

    def alpha_gradient(self, state, train, val):
        found = super().alpha_gradient(state, train, val)
        tensors = dict((*state.supernet.named_parameters(), *state.supernet.named_buffers()))
        with torch.no_grad():
            tensors[self.changes].view(-1)[:1] += 1e-6
        return found


@pytest.mark.parametrize("changes", ["bn1.running_mean", "conv1.weight"])
def test_a_hypergradient_that_changes_the_search_is_found_and_the_search_restored(changes: str) -> None:
    strategy = ChangesTheSearch(changes=changes)
    state = initial_state_of(strategy)
    before = copied_state(state)
    with pytest.raises(SurgeryError, match=rf"strategy 'ChangesTheSearch': the hypergradient changed '{changes}'"):
        check_search_moves(strategy, state, *batches())
    torch.testing.assert_close(copied_state(state), before, rtol=0, atol=0)


def test_mixture_left_out_of_the_forward_pass_is_named() -> None:
    supernet = tiny_supernet()
    supernet.never_called = TinyMixture((torch.tanh, torch.relu))
    with pytest.raises(SurgeryError, match="strategy 'darts': site 'never_called': its alpha got no gradient"):
        check_search_moves(DARTS(), initial_state_of(DARTS(), supernet), *batches())


@dataclass(frozen=True, kw_only=True)
class AlwaysMovesAlpha(Joint):
    """A strategy that moves alpha although its `alpha_moves_from` is None (never)."""

    alpha_moves_from: ClassVar[float | None] = None


@dataclass(frozen=True, kw_only=True)
class NeverMovesAlpha(Joint):
    """A strategy that never moves alpha although its `alpha_moves_from` is the middle of the search."""

    alpha_moves_from: ClassVar[float | None] = 0.5

    def step(self, state, train, val):
        return weight_step(state, train)


def test_alpha_that_moves_although_the_record_says_never_is_found_and_restored() -> None:
    state = initial_state_of(AlwaysMovesAlpha())
    before = copied_state(state)
    with pytest.raises(
        SurgeryError, match="strategy 'AlwaysMovesAlpha': an alpha moved, but the strategy's alpha_moves"
    ):
        check_search_moves(AlwaysMovesAlpha(), state, *batches())
    torch.testing.assert_close(copied_state(state), before, rtol=0, atol=0)


def test_alpha_that_moves_later_is_checked_at_that_progress() -> None:
    state = initial_state_of(NeverMovesAlpha())
    state.progress = 0.125
    with pytest.raises(SurgeryError, match="strategy 'NeverMovesAlpha': site 'act1': its alpha got no gradient"):
        check_search_moves(NeverMovesAlpha(), state, *batches())
    assert state.progress == 0.125
