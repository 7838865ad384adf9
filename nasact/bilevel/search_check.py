"""The check at the start of a search: do the alphas move when they should, does a hypergradient leave no trace?

Runs real steps on a snapshot; afterwards the search stands where it stood, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nasact.bilevel.differentiable_optimiser import InnerStep
from nasact.bilevel.hypergradients import first_order
from nasact.bilevel.problem import Batch, Gradients, SupernetProblem
from nasact.bilevel.snapshot import Snapshot, same_bits
from nasact.bilevel.strategies import SearchState, Strategy, registered_name
from nasact.bilevel.strategies.alpha_schedule import alpha_moves_from
from nasact.bilevel.strategies.state import alpha_names
from nasact.errors import SurgeryError

# A network whose last layer starts at zero (vision transformers do) passes no gradient back before its first step.
PATIENCE = 3


def check_search_moves(strategy: Strategy, state: SearchState, train: Batch, val: Batch) -> None:
    """Raise SurgeryError when an alpha gets no gradient, none moves, or the hypergradient leaves a trace.

    A strategy that lets alpha rest at first is followed to where it says that alpha moves. One that says that it never
    does is held to that, and its alphas are still to have a gradient: else a mixture would not reach the loss.
    `state`, its gradients and the random generators are restored exactly, whether the check passes or not.
    """
    name = registered_name(strategy)
    before, progress, moves_from = Snapshot.take(state), state.progress, alpha_moves_from(strategy)
    try:
        strategy.alpha_gradient(state, train, val)
        touched = before.changed(state)
        if touched:
            raise SurgeryError(f"strategy {name!r}: the hypergradient changed {touched!r} and did not restore it")
        _require_optimised(name, state)
        waiting, alphas = _searched(state), state.supernet.arch_parameters()
        pulled: set[int] = set()
        given: set[int] = set()
        for _ in range(PATIENCE):
            # before the step, which may take alpha to a corner where nothing pulls
            pulled |= _not_zero(_pulls_of_the_loss(state, train, val))
            for state.progress in (progress, moves_from) if moves_from else (progress,):
                strategy.step(state, train, val)
            given |= _not_zero([alpha.grad for alpha in alphas])
            found = pulled if moves_from is None else pulled & given
            waiting = {index: site for index, site in waiting.items() if index not in found}
            if not waiting:
                break
        for site in waiting.values():
            raise SurgeryError(
                f"strategy {name!r}: {site}: its alpha got no gradient: the mixture does not reach the loss"
            )
        if moves_from is None:
            if not _rested(before, state):
                raise SurgeryError(f"strategy {name!r}: an alpha moved, though it says that none ever does")
        elif _searched(state) and not _moved(before, state):
            raise SurgeryError(f"strategy {name!r}: no alpha moved in a step with lr {strategy.lr}")
    finally:
        before.restore(state)
        state.progress = progress


def _searched(state: SearchState) -> dict[int, str]:
    """Index in `arch_parameters()` and site of every mixture with a choice to make."""
    alphas = {id(alpha): index for index, alpha in enumerate(state.supernet.arch_parameters())}
    names = alpha_names(state.supernet)
    return {
        alphas[id(mixture.alpha)]: names[alphas[id(mixture.alpha)]]
        for mixture in state.supernet.mixtures().values()
        if id(mixture.alpha) in alphas and mixture.alpha.shape[-1] > 1
    }


def _require_optimised(name: str, state: SearchState) -> None:
    optimised = {id(p) for group in state.alpha_optimiser.param_groups for p in group["params"]}
    alphas = {id(alpha) for alpha in state.supernet.arch_parameters()}
    for site, mixture in state.supernet.mixtures().items():
        if id(mixture.alpha) not in alphas or id(mixture.alpha) not in optimised:
            raise SurgeryError(f"strategy {name!r}: site {site!r}: its alpha is not in the alpha optimiser")


def _pulls_of_the_loss(state: SearchState, train: Batch, val: Batch) -> Gradients:
    """The gradients of the loss alone: a penalty would also pull at an alpha that the network does not use."""
    problem = SupernetProblem.draw(state.supernet, state.loss, train, val)
    return first_order(problem, problem.w, problem.alpha, InnerStep(())).alpha


def _not_zero(grads: Sequence[Tensor | None]) -> set[int]:
    return {index for index, grad in enumerate(grads) if grad is not None and bool((grad != 0).any())}


def _rested(before: Snapshot, state: SearchState) -> bool:
    return all(same_bits(alpha, before.kept(alpha)) for alpha in state.supernet.arch_parameters())


def _moved(before: Snapshot, state: SearchState) -> bool:
    if not _rested(before, state):
        return True
    # At the border of its feasible set a projection may take the whole step back: look at the step without it.
    state.alpha_optimiser.step()
    return not _rested(before, state)
