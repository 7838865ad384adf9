"""What is right by itself and contradicts the rest of a study: a schedule longer than the search, more to keep than it
leaves. Each function returns where and why, or None; the rooms below are imported when a study is validated."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nasact.study.spec import Search, TrialSpec

Refused = tuple[tuple[str | int, ...], str]


def refused_normaliser(search: Search) -> Refused | None:
    """A normaliser that the strategy cannot serve."""
    from nasact.bilevel import STRATEGIES
    from nasact.bilevel.strategies.state import unsupported_normaliser

    strategy = STRATEGIES.get(search.strategy.name)
    if not strategy.normalisers or search.normaliser in strategy.normalisers:
        return None
    return ("normaliser",), unsupported_normaliser(search.strategy.name, strategy, search.normaliser)


def refused_length(search: Search) -> Refused | None:
    """A schedule inside `search` that would outlast it."""
    from nasact import bilevel
    from nasact.bilevel.phases import too_short
    from nasact.training.schedule import build_schedule, least_epochs
    from nasact.training.schedule_checks import unreached

    epochs, warmup = search.epochs, search.warmup
    if warmup >= epochs:
        return ("warmup",), f"must be smaller than search.epochs, but got (warmup={warmup}, epochs={epochs})"
    schedule = build_schedule(search.temperature)
    if epochs - warmup < least_epochs(schedule):
        return ("temperature",), unreached(schedule, epochs, warmup)
    found = too_short(bilevel.build(search.strategy.name, search.strategy.options), epochs, warmup)
    if found is not None:
        return ("strategy", found[0].option), found[1]
    for index, each in enumerate(bilevel.build_regularisers(search.regularisers)):
        found = too_short(each, epochs, warmup)
        if found is not None:
            return ("regularisers", index, found[0].option), found[1]
    return None


def refused_top_k(spec: TrialSpec) -> Refused | None:
    """More functions to keep than a site has, or than the search leaves; or all of them, and yet a choice to make."""
    from nasact import bilevel, derivation

    top_k, size, path = spec.derive.top_k, len(spec.search_space), ("derive", "top_k")
    name = spec.search.strategy.name
    left = bilevel.candidates_left_at_end(bilevel.build(name, spec.search.strategy.options), size)
    if isinstance(top_k, int) and top_k > size:
        return path, f"must not be larger than the candidate set, but got (top_k={top_k}, candidates={size})"
    if isinstance(top_k, int) and top_k > left:
        return path, f"strategy {name!r} leaves {left} of {size} candidates at each site, but got {top_k}"
    method = derivation.build(spec.derive.method.name, spec.derive.method.options)
    reason = derivation.refusal(method, top_k)
    return None if reason is None else (path, f"derivation {spec.derive.method.name!r} cannot serve here: {reason}")
