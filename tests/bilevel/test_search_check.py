"""The check at a search's start: finds an alpha that does not move, and leaves the search as it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from bilevel_problems import OPTIMISERS, TinyMixture, TinySupernet, batches, normaliser_for, numbers, tiny_supernet
from torch.nn import functional as F

from nasact.bilevel import (
    DARTS,
    STRATEGIES,
    Joint,
    SearchState,
    Strategy,
    alpha_moves_from,
    build,
    check_search_moves,
    weight_step,
)
from nasact.bilevel.snapshot import same_bits
from nasact.errors import Divergence, SurgeryError

CASES = {**{name: build(name, {}) for name in STRATEGIES.names()}, "darts_order_1": DARTS(order=1)}
ALL = pytest.mark.parametrize("strategy", CASES.values(), ids=CASES)
NEVER = {name for name, strategy in CASES.items() if alpha_moves_from(strategy) is None}
MOVING = pytest.mark.parametrize("strategy", [CASES[name] for name in CASES if name not in NEVER])


def test_only_the_control_may_never_move_alpha() -> None:
    assert {"random"} == NEVER


def start(strategy: Strategy, supernet: TinySupernet | None = None, optimiser: str = "sgd_momentum") -> SearchState:
    supernet = tiny_supernet(normaliser=normaliser_for(strategy)) if supernet is None else supernet
    return strategy.init(supernet, OPTIMISERS[optimiser](supernet.weight_parameters()), F.cross_entropy)


def trace(state: SearchState) -> dict[str, object]:
    """All that the check must put back."""
    optimisers = (state.weight_optimiser, state.alpha_optimiser)
    return {
        "numbers": numbers(state.supernet),
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
def test_passes_a_sound_search_and_restores_it_exactly(strategy: Strategy, warm: int, optimiser: str) -> None:
    state = start(strategy, optimiser=optimiser)
    for _ in range(warm):
        strategy.step(state, *batches())
    state.supernet.eval()
    before = trace(state)
    check_search_moves(strategy, state, *batches())
    torch.testing.assert_close(trace(state), before, rtol=0, atol=0)
    assert all(same_bits(t, before["numbers"][name]) for name, t in numbers(state.supernet).items())


@ALL
def test_search_after_the_check_is_the_search_without_it(strategy: Strategy) -> None:
    ends = []
    for checked in (False, True):
        state = start(strategy)
        torch.manual_seed(2)
        if checked:
            check_search_moves(strategy, state, *batches())
        ends.append([strategy.step(state, *batches()) for _ in range(2)])
    assert ends[0] == ends[1]


@ALL
def test_alpha_that_does_not_reach_the_loss_is_named_by_site(strategy: Strategy) -> None:
    state = start(strategy)
    state.supernet.act2.uses_alpha = False
    before = trace(state)
    with pytest.raises(SurgeryError, match="site 'act2': its alpha got no gradient"):
        check_search_moves(strategy, state, *batches())
    torch.testing.assert_close(trace(state), before, rtol=0, atol=0)


@ALL
def test_alpha_that_is_in_no_optimiser_is_named_by_site(strategy: Strategy) -> None:
    state = start(strategy)
    state.alpha_optimiser = torch.optim.Adam(state.supernet.arch_parameters()[:1], lr=0.1)
    with pytest.raises(SurgeryError, match="site 'act2': its alpha is not in the alpha optimiser"):
        check_search_moves(strategy, state, *batches())


@MOVING
def test_alpha_that_stands_still_is_found(strategy: Strategy) -> None:
    state = start(strategy)
    state.supernet.project_()
    state.alpha_optimiser.step = lambda: None
    with pytest.raises(SurgeryError, match="no alpha moved in a step"):
        check_search_moves(strategy, state, *batches())


@ALL
def test_alpha_held_at_the_border_of_its_feasible_set_passes(strategy: Strategy) -> None:
    """At a vertex a projection may take the first step back: that is no broken search."""
    state = start(strategy)
    vertices = [alpha.detach().clone() for alpha in state.supernet.arch_parameters()]

    @torch.no_grad()
    def project_() -> None:
        for alpha, vertex in zip(state.supernet.arch_parameters(), vertices, strict=True):
            alpha.copy_(vertex)

    state.supernet.project_ = project_
    check_search_moves(strategy, state, *batches())


@ALL
def test_last_layer_that_starts_at_zero_passes(strategy: Strategy) -> None:
    """Vision transformers start so: nothing flows back before the first step."""
    state = start(strategy)
    torch.nn.init.zeros_(state.supernet.head.weight)
    check_search_moves(strategy, state, *batches())


@ALL
def test_site_with_a_single_candidate_has_nothing_to_move(strategy: Strategy) -> None:
    check_search_moves(
        strategy, start(strategy, tiny_supernet((torch.tanh,), normaliser=normaliser_for(strategy))), *batches()
    )


@ALL
def test_divergence_in_the_check_restores_the_search_too(strategy: Strategy) -> None:
    state = start(strategy)
    state.loss = lambda out, y: F.cross_entropy(out, y) * float("nan")
    before = trace(state)
    with pytest.raises(Divergence):
        check_search_moves(strategy, state, *batches())
    torch.testing.assert_close(trace(state), before, rtol=0, atol=0)


@dataclass(frozen=True, kw_only=True)
class Leaky(Joint):
    """A hypergradient that forgets to put back what it touched."""

    touch: str = "bn1.running_mean"

    def alpha_gradient(self, state, train, val):
        found = super().alpha_gradient(state, train, val)
        tensors = dict((*state.supernet.named_parameters(), *state.supernet.named_buffers()))
        with torch.no_grad():
            tensors[self.touch].view(-1)[:1] += 1e-6
        return found


@pytest.mark.parametrize("touch", ["bn1.running_mean", "conv1.weight"])
def test_hypergradient_that_leaves_a_trace_is_found_and_cleaned_up(touch: str) -> None:
    strategy = Leaky(touch=touch)
    state = start(strategy)
    before = trace(state)
    with pytest.raises(SurgeryError, match=rf"strategy 'Leaky': the hypergradient changed '{touch}'"):
        check_search_moves(strategy, state, *batches())
    torch.testing.assert_close(trace(state), before, rtol=0, atol=0)


def test_mixture_left_out_of_the_forward_pass_is_named() -> None:
    supernet = tiny_supernet()
    supernet.never_called = TinyMixture((torch.tanh, torch.relu))
    with pytest.raises(SurgeryError, match="strategy 'darts': site 'never_called': its alpha got no gradient"):
        check_search_moves(DARTS(), start(DARTS(), supernet), *batches())


@dataclass(frozen=True, kw_only=True)
class Restless(Joint):
    """Moves alpha, and says that it never does."""

    alpha_moves_from: ClassVar[float | None] = None


@dataclass(frozen=True, kw_only=True)
class Late(Joint):
    """Says that alpha moves from the middle on, and forgets to move it then."""

    alpha_moves_from: ClassVar[float | None] = 0.5

    def step(self, state, train, val):
        return weight_step(state, train)


def test_alpha_that_moves_though_it_is_said_to_rest_is_found_and_put_back() -> None:
    state = start(Restless())
    before = trace(state)
    with pytest.raises(SurgeryError, match="strategy 'Restless': an alpha moved, though it says that none ever does"):
        check_search_moves(Restless(), state, *batches())
    torch.testing.assert_close(trace(state), before, rtol=0, atol=0)


def test_alpha_that_is_said_to_move_later_is_followed_there() -> None:
    state = start(Late())
    state.progress = 0.125
    with pytest.raises(SurgeryError, match="strategy 'Late': site 'act1': its alpha got no gradient"):
        check_search_moves(Late(), state, *batches())
    assert state.progress == 0.125
