"""Whether the monitors of a study can measure its supernet, found out before the first trial."""

from __future__ import annotations

from collections.abc import Iterable

from torch.nn import functional as F

from nasact.monitors import MonitorSuite, build_monitors, require_known_site
from nasact.study import TrialSpec
from nasact.supernet import Supernet
from nasact.supernet_setup import begin_supernet
from nasact.tasks import Data


def require_monitors(spec: TrialSpec, data: Data, sites: Iterable[str]) -> None:
    """Raise StudyError, with the reason, if a monitor cannot measure the study's supernet, or `outer.prune_by` names
    a site that is not in `sites`. Builds the supernet only for a monitor that needs it."""
    require_known_site(spec.outer.prune_by, sites)
    if any(monitor.needs_precheck for monitor in build_monitors(spec.search.monitors)):
        require_monitors_on(begin_supernet(spec, data), spec, data)


def require_monitors_on(supernet: Supernet, spec: TrialSpec, data: Data) -> None:
    """The same for a `supernet` that is built already."""
    require_known_site(spec.outer.prune_by, (site.name for site in supernet.sites))
    suite = MonitorSuite(monitors=build_monitors(spec.search.monitors), top_k=spec.derive.top_k)
    suite.precheck(supernet, F.cross_entropy, data.val, spec.seed)
