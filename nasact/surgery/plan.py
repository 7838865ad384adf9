"""Where the sites of one model object are, for install.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from nasact.errors import SurgeryError
from nasact.surgery.reading.values import FoundSite
from nasact.surgery.reading.versions import FunctionVersion
from nasact.surgery.reading.whole_model import read_model
from nasact.surgery.roles import role_of
from nasact.surgery.site_records import Site, SiteReport, Unreachable

ROOT = "root"
"""Name of the site if the model itself is an activation, and of the model in messages."""


@dataclass(frozen=True, eq=False)
class SiteLocation:
    """Where surgery installs a site's module: as attribute `key` of `parent` (None: the model is the activation).

    `original`: the model's own activation as a module, not in-place. `exact`: the catalogue function of the site gives
    the same bits as `original`. `found`: what was read about the site.
    """

    parent: nn.Module | None
    key: str
    original: nn.Module
    exact: bool
    found: FoundSite


Located = dict[str, tuple[Site, SiteLocation]]


@dataclass(frozen=True, eq=False)
class SurgeryPlan:
    """Every site of one model object with its location.

    `sites`: the chosen ones; `gates`: the others, which are left alone. `versions`: by id of a module, its functions
    that apply sites. `found`: every site, also the excluded ones.
    """

    model: nn.Module
    sites: Located
    gates: Located
    unreachable: tuple[Unreachable, ...]
    versions: Mapping[int, list[FunctionVersion]]
    found: tuple[FoundSite, ...]

    def report(self) -> SiteReport:
        """The public part of the plan."""
        sites, gates = (tuple(site for site, _ in each.values()) for each in (self.sites, self.gates))
        return SiteReport(sites, self.unreachable, gates)

    def every(self) -> Located:
        """The sites and the gates."""
        return {**self.sites, **self.gates}

    def location(self, name: str) -> SiteLocation:
        """The location of a site or gate."""
        return self.every()[name][1]


def read_plan(model: nn.Module) -> SurgeryPlan:
    """Every site of a model, found by reading its code; all activations are chosen. The model is not changed."""
    given: object = model
    if not isinstance(given, nn.Module):
        made = f"the class {given.__name__}" if isinstance(given, type) else f"{type(given).__name__}"
        raise SurgeryError(f"expected a model (an instance of nn.Module), but got {made}")
    reading = read_model(model)
    located: Located = {}
    for found in reading.sites:
        role, reason = role_of(found)
        site = Site(
            found.name, found.function, found.detail, found.kind, found.channels, role, reason, found.place
        )  # fmt: skip
        parent = None if found is reading.root else found.owner
        located[found.name] = (site, SiteLocation(parent, found.key, found.original, found.exact, found))
    unreachable = tuple(Unreachable(each.path or ROOT, each.reason) for each in reading.refusals)
    return SurgeryPlan(
        model,
        {name: each for name, each in located.items() if each[0].role == "activation"},
        {name: each for name, each in located.items() if each[0].role != "activation"},
        unreachable,
        reading.versions,
        reading.sites,
    )
