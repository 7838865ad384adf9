"""The check at the start of a search: alphas move when they should, and a hypergradient changes nothing.

Runs real steps on a snapshot; afterwards the search state is restored bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nasact.bilevel.differentiable_optimiser import InnerStep
from nasact.bilevel.hypergradients.first_order import first_order
from nasact.bilevel.problem import Batch, Gradients, SupernetProblem
from nasact.bilevel.snapshot import Snapshot, same_bits
from nasact.bilevel.strategies.base import Strategy, alpha_moves_from, registered_name
from nasact.bilevel.strategies.state import SearchState, alpha_names
from nasact.errors import SurgeryError

# A network whose last layer starts at zero (vision transformers do) passes no gradient back before its first step.
PATIENCE = 3


def check_search_moves(strategy: Strategy, state: SearchState, train: Batch, val: Batch) -> None:
    """Raise SurgeryError if an alpha gets no gradient, no alpha moves, or the hypergradient changes the search.

    A strategy that updates alpha only from some progress on is checked there. If a strategy never updates alpha, the
    check is that no alpha moves. The loss must have a gradient for every alpha in any case: otherwise a mixture does
    not reach the loss. `state`, its gradients and the random generators are restored exactly, also if the check fails.
    """
    name = registered_name(strategy)
    before, progress, moves_from = Snapshot.take(state), state.progress, alpha_moves_from(strategy)
    try:
        strategy.alpha_gradient(state, train, val)
        changed = before.find_change(state)
        if changed:
            raise SurgeryError(f"strategy {name!r}: the hypergradient changed {changed!r} and did not restore it")
        _require_optimised(name, state)
        sites_without_gradient, alphas = _searched_sites(state), state.supernet.arch_parameters()
        reached_by_loss: set[int] = set()
        received_gradient: set[int] = set()
        for _ in range(PATIENCE):
            # before the step, which may move alpha to a vertex where the loss has no gradient
            reached_by_loss |= _nonzero(_loss_gradients(state, train, val))
            for state.progress in (progress, moves_from) if moves_from else (progress,):
                strategy.step(state, train, val)
            received_gradient |= _nonzero([alpha.grad for alpha in alphas])
            passed = reached_by_loss if moves_from is None else reached_by_loss & received_gradient
            sites_without_gradient = {i: site for i, site in sites_without_gradient.items() if i not in passed}
            if not sites_without_gradient:
                break
        for site in sites_without_gradient.values():
            raise SurgeryError(
                f"strategy {name!r}: {site}: its alpha got no gradient: the mixture does not reach the loss"
            )
        if moves_from is None:
            if not _alphas_unchanged(before, state):
                raise SurgeryError(
                    f"strategy {name!r}: an alpha moved, but the strategy's alpha_moves_from is None (never)"
                )
        elif _searched_sites(state) and not _alphas_moved(before, state):
            raise SurgeryError(f"strategy {name!r}: no alpha moved in a step with lr {strategy.lr}")
    finally:
        before.restore(state)
        state.progress = progress


def _searched_sites(state: SearchState) -> dict[int, str]:
    """Return index in `arch_parameters()` -> site, of every mixture with more than one candidate."""
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


def _loss_gradients(state: SearchState, train: Batch, val: Batch) -> Gradients:
    """Return the gradients of the loss without penalties: a penalty has a gradient even for an alpha without effect."""
    problem = SupernetProblem.draw(state.supernet, state.loss, train, val)
    return first_order(problem, problem.w, problem.alpha, InnerStep(())).alpha


def _nonzero(grads: Sequence[Tensor | None]) -> set[int]:
    return {index for index, grad in enumerate(grads) if grad is not None and bool((grad != 0).any())}


def _alphas_unchanged(before: Snapshot, state: SearchState) -> bool:
    return all(same_bits(alpha, before.saved_values(alpha)) for alpha in state.supernet.arch_parameters())


def _alphas_moved(before: Snapshot, state: SearchState) -> bool:
    if not _alphas_unchanged(before, state):
        return True
    # At the border of its feasible set a projection may undo the whole step: try the step without a projection.
    state.alpha_optimiser.step()
    return not _alphas_unchanged(before, state)
