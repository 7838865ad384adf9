"""The check at the start of a search: do the alphas move, and does a hypergradient leave everything else alone?

Runs real steps on a snapshot; afterwards the search stands where it stood, bit for bit.
"""

from __future__ import annotations

from nasact.bilevel.problem import Batch
from nasact.bilevel.snapshot import Snapshot, same_bits
from nasact.bilevel.strategies import STRATEGIES, SearchState, Strategy
from nasact.bilevel.strategies.state import alpha_names
from nasact.errors import SurgeryError

# A network whose last layer starts at zero (vision transformers do) passes no gradient back before its first step.
PATIENCE = 3


def check_search_moves(strategy: Strategy, state: SearchState, train: Batch, val: Batch) -> None:
    """Raise SurgeryError when an alpha gets no gradient, none moves, or the hypergradient leaves a trace.

    `state`, its gradients and the random generators are restored exactly, whether the check passes or not.
    """
    name = _name(strategy)
    before = Snapshot.take(state)
    try:
        strategy.alpha_gradient(state, train, val)
        touched = before.changed(state)
        if touched:
            raise SurgeryError(f"strategy {name!r}: the hypergradient changed {touched!r} and did not restore it")
        _require_optimised(name, state)
        waiting = _searched(state)
        for _ in range(PATIENCE):
            strategy.step(state, train, val)
            waiting = {index: site for index, site in waiting.items() if not _has_gradient(state, index)}
            if not waiting:
                break
        for site in waiting.values():
            raise SurgeryError(
                f"strategy {name!r}: {site}: its alpha got no gradient: the mixture does not reach the loss"
            )
        if _searched(state) and not _moved(before, state):
            raise SurgeryError(f"strategy {name!r}: no alpha moved in a step with lr {strategy.lr}")
    finally:
        before.restore(state)


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


def _has_gradient(state: SearchState, index: int) -> bool:
    grad = state.supernet.arch_parameters()[index].grad
    return grad is not None and bool((grad != 0).any())


def _moved(before: Snapshot, state: SearchState) -> bool:
    alphas = state.supernet.arch_parameters()
    if any(not same_bits(alpha, before.kept(alpha)) for alpha in alphas):
        return True
    # At the border of its feasible set a projection may take the whole step back: look at the step without it.
    state.alpha_optimiser.step()
    return any(not same_bits(alpha, before.kept(alpha)) for alpha in alphas)


def _name(strategy: Strategy) -> str:
    return next((name for name, cls in STRATEGIES.items() if type(strategy) is cls), type(strategy).__name__)
