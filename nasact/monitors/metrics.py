"""The metrics of a search's epochs by name, and where each is better. Knows what monitors say that they give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nasact.errors import StudyError, did_you_mean
from nasact.monitors.base import Better, Monitor

OF_EVERY_SEARCH: Mapping[str, Better] = {
    "val_accuracy": "high",
    "val_loss": "low",
    "train_loss": "low",
    "entropy": "low",
}


def better(metric: str, monitors: Iterable[Monitor | type[Monitor]]) -> Better | None:
    """Where `metric` is better, low or high; None where neither the search nor one of these monitors gives it."""
    given = known(monitors)
    stem = metric.partition(".")[0]
    return given.get(metric) or (given.get(f"{stem}.*") if metric != stem and len(metric) > len(stem) + 1 else None)


def known(monitors: Iterable[Monitor | type[Monitor]]) -> dict[str, Better]:
    return {**OF_EVERY_SEARCH, **{name: side for monitor in monitors for name, side in monitor.metrics.items()}}


def require_site(metric: str, sites: Iterable[str]) -> None:
    """StudyError where `metric` is one of a site that the model does not have."""
    stem, _, site = metric.partition(".")
    sites = tuple(sites)
    if site and site not in sites:
        near = did_you_mean(metric, [f"{stem}.{one}" for one in sites])
        raise StudyError(f"outer.prune_by: {metric!r} is of no site of the model.{near} It has: {', '.join(sites)}")
