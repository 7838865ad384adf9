"""Monitors: what is measured after each epoch of a search, and whether that shows a collapse. Frozen records, by name.

Sees searches and validation data; changes neither. Knows no study and no trial. To register is to be listed and tested.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from nasact.monitors.base import Collapse, EpochMetrics, Monitor, MonitorContext
from nasact.monitors.discretisation import Discretisation
from nasact.monitors.hessian import Hessian
from nasact.monitors.metrics import better, known, require_site
from nasact.monitors.monitor_suite import MonitorSuite, OnCollapse
from nasact.monitors.weights import Weights
from nasact.options import from_options
from nasact.registry import Registry

MONITORS: Registry[type[Monitor]] = Registry("monitor", "nasact list monitors")
MONITORS.register("weights", Weights)
MONITORS.register("hessian", Hessian)
MONITORS.register("discretisation", Discretisation)


def build(name: str, options: Mapping[str, Any]) -> Monitor:
    """The monitor called `name` with these options; StudyError names the option that is unknown or out of range."""
    return from_options(f"monitor {name!r}", MONITORS.get(name), options)


class Named(Protocol):
    """What a study says about one monitor."""

    @property
    def name(self) -> str: ...

    @property
    def options(self) -> Mapping[str, Any]: ...


def build_monitors(wanted: Iterable[Named]) -> tuple[Monitor, ...]:
    return tuple(build(each.name, each.options) for each in wanted)


__all__ = [
    "MONITORS",
    "Collapse",
    "Discretisation",
    "EpochMetrics",
    "Hessian",
    "Monitor",
    "MonitorContext",
    "MonitorSuite",
    "OnCollapse",
    "Weights",
    "better",
    "build",
    "build_monitors",
    "known",
    "require_site",
]
