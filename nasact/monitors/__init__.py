"""Monitors: what is measured after each epoch of a search, and whether the measurements show a collapse.

Knows searches and validation data, and changes neither; must not know studies or trials. Each file with a monitor
registers its record, which is then listed, accepted in studies and tested.
"""

from nasact.monitors.base import MONITORS, Collapse, Monitor, MonitorContext
from nasact.monitors.metric_directions import known_metrics, metric_direction, require_known_site
from nasact.monitors.monitor_suite import MonitorSuite, OnCollapse
from nasact.registry import import_submodules

import_submodules(__name__, __path__)
build = MONITORS.build
build_monitors = MONITORS.build_all

__all__ = [
    "MONITORS",
    "Collapse",
    "Monitor",
    "MonitorContext",
    "MonitorSuite",
    "OnCollapse",
    "build",
    "build_monitors",
    "known_metrics",
    "metric_direction",
    "require_known_site",
]
