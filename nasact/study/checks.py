"""What is checked between the keys of a study: each check returns the conflict it finds, or None.

A new check is a function here and an entry in `CHECKS`. What contradicts itself inside one node is checked by that node
(`sections`). The rooms below are imported when a study is validated, never with this module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from nasact.errors import did_you_mean
from nasact.study.sections import Derive, Outer, Search

if TYPE_CHECKING:
    from nasact.monitors import Monitor


class Sections(Protocol):
    """The sections that checks compare; TrialSpec has them."""

    @property
    def search_space(self) -> tuple[str, ...]: ...

    @property
    def search(self) -> Search: ...

    @property
    def derive(self) -> Derive: ...

    @property
    def outer(self) -> Outer: ...


class Conflict(NamedTuple):
    """The key that a user should change, as a path from the top of the study, and why."""

    path: tuple[str | int, ...]
    message: str


def normaliser_is_supported(spec: Sections) -> Conflict | None:
    """The strategy supports the normaliser."""
    from nasact.bilevel import STRATEGIES
    from nasact.bilevel.strategies.base import unsupported_normaliser

    search = spec.search
    strategy = STRATEGIES.get(search.strategy.name)
    if not strategy.normalisers or search.normaliser in strategy.normalisers:
        return None
    return Conflict(("search", "normaliser"), unsupported_normaliser(search.strategy.name, strategy, search.normaliser))


def schedules_fit_the_search(spec: Sections) -> Conflict | None:
    """Warm-up, temperature, and the phases of strategy and regularisers are not longer than the search."""
    from nasact import bilevel
    from nasact.bilevel.phases import find_too_short_phase
    from nasact.training.schedule import build_schedule, least_epochs
    from nasact.training.schedule_checks import too_short_to_anneal

    search = spec.search
    epochs, warmup = search.epochs, search.warmup
    if warmup >= epochs:
        message = f"must be smaller than search.epochs, but got (warmup={warmup}, epochs={epochs})"
        return Conflict(("search", "warmup"), message)
    schedule = build_schedule(search.temperature)
    if epochs - warmup < least_epochs(schedule):
        return Conflict(("search", "temperature"), too_short_to_anneal(schedule, epochs, warmup))
    found = find_too_short_phase(bilevel.build(search.strategy.name, search.strategy.options), epochs, warmup)
    if found is not None:
        return Conflict(("search", "strategy", found[0].option), found[1])
    for index, regulariser in enumerate(bilevel.build_regularisers(search.regularisers)):
        found = find_too_short_phase(regulariser, epochs, warmup)
        if found is not None:
            return Conflict(("search", "regularisers", index, found[0].option), found[1])
    return None


def top_k_is_available(spec: Sections) -> Conflict | None:
    """A site has `top_k` functions left at the end of the search, and the derivation supports that number."""
    from nasact import bilevel, derivation

    top_k, size, path = spec.derive.top_k, len(spec.search_space), ("derive", "top_k")
    strategy = spec.search.strategy
    remaining = bilevel.remaining_candidates(bilevel.build(strategy.name, strategy.options), size)
    if isinstance(top_k, int) and top_k > size:
        message = f"must not be larger than the candidate set, but got (top_k={top_k}, candidates={size})"
        return Conflict(path, message)
    if isinstance(top_k, int) and top_k > remaining:
        message = f"strategy {strategy.name!r} leaves {remaining} of {size} candidates at each site, but got {top_k}"
        return Conflict(path, message)
    method = spec.derive.method
    reason = derivation.refusal(derivation.build(method.name, method.options), top_k)
    return None if reason is None else Conflict(path, f"derivation {method.name!r} cannot be applied: {reason}")


def derivation_supports_level(spec: Sections) -> Conflict | None:
    """The derivation supports the level."""
    from nasact.derivation import DERIVATIONS

    name, level = spec.derive.method.name, spec.search.level
    levels = DERIVATIONS.get(name).levels
    if not levels or level in levels:
        return None
    message = f"derivation {name!r} needs level {' or '.join(levels)}, but search.level is {level!r}"
    return Conflict(("derive", "method"), message)


def regularisers_apply(spec: Sections) -> Conflict | None:
    """Every regulariser can be applied with this strategy, normaliser and level."""
    from nasact import bilevel
    from nasact.bilevel import regularisers
    from nasact.bilevel.strategies.attach_regularisers import search_setting
    from nasact.mixture import NORMALISERS

    search = spec.search
    if not search.regularisers:
        return None
    setting = search_setting(
        bilevel.build(search.strategy.name, search.strategy.options),
        normaliser=NORMALISERS.get(search.normaliser),
        level=search.level,
        # with init: original each site's bank has one more function, which only the model determines
        functions=spec.search_space if search.init == "uniform" else None,
    )
    for index, regulariser in enumerate(bilevel.build_regularisers(search.regularisers)):
        reason = regularisers.refusal(regulariser, setting)
        if reason is not None:
            message = f"regulariser {regulariser.name!r} cannot be applied: {reason}"
            return Conflict(("search", "regularisers", index), message)
    return None


def monitors_measure(spec: Sections) -> Conflict | None:
    """Every monitor measures at least once."""
    for index, monitor in enumerate(_monitors(spec)):
        first, epochs = monitor.first_epoch(), spec.search.epochs
        if first > epochs:
            message = f"must not be larger than search.epochs, but got (every={first}, epochs={epochs})"
            return Conflict(("search", "monitors", index, "every"), message)
    return None


def collapse_is_detectable(spec: Sections) -> Conflict | None:
    """To stop or to roll back needs a monitor that can detect a collapse before the search ends."""
    search = spec.search
    if search.on_collapse == "report":
        return None
    epochs = ((monitor.name, monitor.earliest_collapse(search.warmup)) for monitor in _monitors(spec))
    earliest = {name: epoch for name, epoch in epochs if epoch is not None}
    if any(epoch <= search.epochs for epoch in earliest.values()):
        return None
    too_late = "; ".join(f"{name!r} detects one at epoch {epoch} at the earliest" for name, epoch in earliest.items())
    why = (
        f"search.epochs is {search.epochs}, and {too_late}"
        if too_late
        else "add hessian, or weights with `most_identity` below 1, to search.monitors"
    )
    message = f"{search.on_collapse!r}, but no monitor can detect a collapse: {why}"
    return Conflict(("search", "on_collapse"), message)


def pruning_metric_is_measured(spec: Sections) -> Conflict | None:
    """`outer.prune_by` is a metric of the search or of one of its monitors."""
    from nasact import monitors

    metric, built = spec.outer.prune_by, _monitors(spec)
    if monitors.metric_direction(metric, built) is not None:
        return None
    owners = (name for name, monitor in monitors.MONITORS.items() if monitors.metric_direction(metric, (monitor,)))
    owner = next(owners, None)
    known = monitors.known_metrics(built)
    hint = (
        f" Monitor {owner!r} measures it: add it to search.monitors"
        if owner
        else f"{did_you_mean(metric, known)} There are: {', '.join(known)}"
    )
    return Conflict(("outer", "prune_by"), f"no monitor of the study measures {metric!r}.{hint}")


def _monitors(spec: Sections) -> tuple[Monitor, ...]:
    from nasact.monitors import build_monitors

    return build_monitors(spec.search.monitors)


CHECKS: tuple[Callable[[Sections], Conflict | None], ...] = (
    normaliser_is_supported,
    schedules_fit_the_search,
    top_k_is_available,
    derivation_supports_level,
    regularisers_apply,
    monitors_measure,
    collapse_is_detectable,
    pruning_metric_is_measured,
)
"""In the order in which conflicts are reported; a check may rely on those before it."""
