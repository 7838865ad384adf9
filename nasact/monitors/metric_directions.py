"""The metrics of an epoch of a search by name, and whether low or high values of each are better."""

from __future__ import annotations

from collections.abc import Iterable

from nasact.errors import StudyError, did_you_mean
from nasact.monitors.base import Monitor
from nasact.training.loop import SEARCH_METRICS
from nasact.training.metrics import Direction


def metric_direction(metric: str, monitors: Iterable[Monitor | type[Monitor]]) -> Direction | None:
    """Whether low or high values of `metric` are better; None if neither the search nor these monitors measure it."""
    directions = known_metrics(monitors)
    stem, _, site = metric.partition(".")
    return directions.get(metric) or (directions.get(f"{stem}.*") if site else None)


def known_metrics(monitors: Iterable[Monitor | type[Monitor]]) -> dict[str, Direction]:
    """The metrics of every search and of these monitors that have a better direction, each with this direction."""
    directions = {metric: direction for metric, direction in SEARCH_METRICS.items() if direction is not None}
    for monitor in monitors:
        directions |= monitor.metrics
    return directions


def require_known_site(metric: str, sites: Iterable[str]) -> None:
    """Raise StudyError if `metric` belongs to a site that the model does not have."""
    stem, _, site = metric.partition(".")
    sites = tuple(sites)
    if site and site not in sites:
        near = did_you_mean(metric, [f"{stem}.{known}" for known in sites])
        raise StudyError(
            f"outer.prune_by: {metric!r} names a site that the model does not have.{near} Sites: {', '.join(sites)}"
        )
