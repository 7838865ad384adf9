"""Regularisers given to a search: refused where its strategy or its mixtures would make them meaningless."""

from __future__ import annotations

from collections.abc import Sequence

from nasact.bilevel.regularisers import Regulariser, Setting, require_supported
from nasact.bilevel.strategies.alpha_schedule import alpha_moves_from
from nasact.bilevel.strategies.state import SearchState, Strategy
from nasact.mixture import Normaliser


def setting_of(
    strategy: Strategy,
    *,
    normaliser: Normaliser,
    level: str,
    functions: tuple[str, ...] | None = None,
    original: str | None = None,
) -> Setting:
    """What a regulariser is told of a search: at one site, or at all of them as far as a study tells.

    A strategy takes steps of the weights alone unless its attribute `weight_steps` says otherwise.
    """
    return Setting(
        normaliser=normaliser,
        level=level,
        functions=functions,
        original=original,
        weight_steps=bool(getattr(strategy, "weight_steps", True)),
        alpha_moves=alpha_moves_from(strategy) is not None,
    )


def regularise(strategy: Strategy, state: SearchState, regularisers: Sequence[Regulariser]) -> None:
    """From now on `state` is a search with these; StudyError naming the first that cannot serve, and why."""
    if regularisers:
        originals = {site.name: site.function for site in state.supernet.sites}
        settings = {
            name: setting_of(
                strategy,
                normaliser=mixture.normaliser,
                level=mixture.bank.layout.level,
                functions=mixture.names,
                original=originals.get(name),
            )
            for name, mixture in state.supernet.mixtures().items()
        }
        require_supported(regularisers, state.supernet, settings)
    state.regularisers = tuple(regularisers)
