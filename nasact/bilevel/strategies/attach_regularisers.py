"""Attaches regularisers to a search; refuses those without meaning for its strategy or its mixtures."""

from __future__ import annotations

from collections.abc import Sequence

from nasact.bilevel.regularisers.base import Regulariser, SearchSetting
from nasact.bilevel.regularisers.penalised_loss import require_supported
from nasact.bilevel.strategies.base import Strategy, alpha_moves_from, takes_weight_steps
from nasact.bilevel.strategies.state import SearchState
from nasact.mixture import Normaliser


def search_setting(
    strategy: Strategy,
    *,
    normaliser: Normaliser,
    level: str,
    functions: tuple[str, ...] | None = None,
    original: str | None = None,
) -> SearchSetting:
    """Return the setting by which a regulariser is refused: of one site, or of a whole search (None: not known)."""
    return SearchSetting(
        normaliser=normaliser,
        level=level,
        functions=functions,
        original=original,
        weight_steps=takes_weight_steps(strategy),
        alpha_moves=alpha_moves_from(strategy) is not None,
    )


def regularise(strategy: Strategy, state: SearchState, regularisers: Sequence[Regulariser]) -> None:
    """Set the regularisers of `state`; raise StudyError, with the reason, if one of them cannot be applied."""
    if regularisers:
        originals = {site.name: site.function for site in state.supernet.sites}
        settings = {
            name: search_setting(
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
