"""Monitors that could do nothing in a study, and a metric to prune by that none of them gives. Where and why, or None.

The rooms below are imported when a study is validated, never when this module is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nasact.errors import did_you_mean

if TYPE_CHECKING:
    from nasact.monitors import Monitor
    from nasact.study.spec import TrialSpec

Refused = tuple[tuple[str | int, ...], str]


def refused(spec: TrialSpec) -> Refused | None:
    """The first place in `search` or `outer` where the monitors do not fit the rest."""
    from nasact import monitors

    built = monitors.build_monitors(spec.search.monitors)
    return _never_measured(spec, built) or _never_told(spec, built) or _unknown_metric(spec, built)


def _never_measured(spec: TrialSpec, built: tuple[Monitor, ...]) -> Refused | None:
    for index, monitor in enumerate(built):
        if monitor.first_epoch() > spec.search.epochs:
            first, epochs = monitor.first_epoch(), spec.search.epochs
            message = f"must not be larger than search.epochs, but got (every={first}, epochs={epochs})"
            return ("search", "monitors", index, "every"), message
    return None


def _never_told(spec: TrialSpec, built: tuple[Monitor, ...]) -> Refused | None:
    """To stop or to roll back is accepted only where a collapse can be told before the search is over."""
    search = spec.search
    if search.on_collapse == "report":
        return None
    earliest = {
        monitor.name: epoch for monitor in built if (epoch := monitor.earliest_collapse(search.warmup)) is not None
    }
    if any(epoch <= search.epochs for epoch in earliest.values()):
        return None
    told = "; ".join(f"{name!r} tells one at epoch {epoch} at the earliest" for name, epoch in earliest.items())
    why = (
        f"search.epochs is {search.epochs}, and {told}"
        if told
        else "add hessian, or weights with `most_identity` below 1, to search.monitors"
    )
    return ("search", "on_collapse"), f"{search.on_collapse!r}, but no monitor can tell a collapse: {why}"


def _unknown_metric(spec: TrialSpec, built: tuple[Monitor, ...]) -> Refused | None:
    from nasact import monitors

    metric = spec.outer.prune_by
    if monitors.better(metric, built) is not None:
        return None
    whose = next((name for name, one in monitors.MONITORS.items() if monitors.better(metric, (one,))), None)
    known = monitors.known(built)
    hint = (
        f" Monitor {whose!r} gives it: add it to search.monitors"
        if whose
        else f"{did_you_mean(metric, known)} There are: {', '.join(known)}"
    )
    return ("outer", "prune_by"), f"no monitor of the study gives {metric!r}.{hint}"
