"""Finds a model's activation sites, decides which of them are searched, and names the parts that cannot be replaced.

`plan_surgery` also records where each site is, for install.py; `find_sites` returns the public part.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from nasact.errors import SurgeryError, did_you_mean
from nasact.surgery.reading.values import FoundSite
from nasact.surgery.reading.versions import FunctionVersion
from nasact.surgery.reading.whole_model import Reading, read_model
from nasact.surgery.roles import role_of
from nasact.surgery.site_records import Site, SiteReport, Unreachable

ROOT = "root"
"""Name of the site if the model itself is an activation, and of the model in messages."""
_LISTED_GATES = 3


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


@dataclass(frozen=True, eq=False)
class SurgeryPlan:
    """Every site of one model object with its location.

    `sites`: the chosen ones; `gates`: the others, that are left alone. `versions`: by id of a module, its functions
    that apply sites. `found`: every site, also the excluded ones.
    """

    model: nn.Module
    sites: dict[str, tuple[Site, SiteLocation]]
    gates: dict[str, tuple[Site, SiteLocation]]
    unreachable: tuple[Unreachable, ...]
    versions: Mapping[int, list[FunctionVersion]]
    found: tuple[FoundSite, ...]

    def report(self) -> SiteReport:
        """The public part of the plan."""
        sites, gates = (tuple(site for site, _ in each.values()) for each in (self.sites, self.gates))
        return SiteReport(sites, self.unreachable, gates)

    def location(self, name: str) -> SiteLocation:
        """The location of a site or gate."""
        return (self.sites.get(name) or self.gates[name])[1]


def plan_surgery(
    model: nn.Module,
    *,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    partial: bool = False,
    may_be_empty: bool = False,
) -> SurgeryPlan:
    """Find every chosen site of `model` with its location.

    Raises SurgeryError if a part is unreachable, unless `partial`, or if there is no site, unless `may_be_empty`.
    """
    reading = read_model(model)
    located = {each.name: _located(each, reading) for each in reading.sites}
    unreachable = tuple(Unreachable(each.path or ROOT, each.reason) for each in reading.refusals)
    _check_patterns(include, exclude, {name: site for name, (site, _) in located.items()}, unreachable)
    chosen, gates = {}, {}
    for name, (site, location) in located.items():
        if _matches(name, exclude):
            continue
        if name in include or (site.role == "activation" and _matches(name, include)):
            chosen[name] = (site, location)
        elif site.role != "activation":
            gates[name] = (site, location)
    missed = tuple(each for each in unreachable if _matches(each.name, include) and not _matches(each.name, exclude))
    if missed and not partial:
        listed = "; ".join(f"{each.name!r}: {each.reason}" for each in missed)
        raise SurgeryError(
            f"{len(missed)} part(s) of {type(model).__name__} have activations that cannot be replaced: {listed}. "
            "Exclude them with sites.exclude, or accept partial coverage with sites.partial: true"
        )
    if not chosen and not may_be_empty:
        left = " left" if located or unreachable else ""
        raise SurgeryError(f"{type(model).__name__} has no activation site to search{left}{_gates_note(gates)}")
    return SurgeryPlan(model, chosen, gates, missed, reading.versions, reading.sites)


def find_sites(
    model: nn.Module, *, include: Sequence[str] = ("*",), exclude: Sequence[str] = (), partial: bool = True
) -> SiteReport:
    """Find the activation sites of `model`, in the order of its forward, and the parts that cannot be reached.

    `include` and `exclude` are shell patterns for site names. The full name of a gate in `include` makes it a site. The
    model is read, not run, and is not changed.
    """
    return plan_surgery(model, include=include, exclude=exclude, partial=partial, may_be_empty=True).report()


def _located(found: FoundSite, reading: Reading) -> tuple[Site, SiteLocation]:
    role, reason = role_of(found)
    site = Site(
        found.name, found.function, found.detail, found.kind, found.channels, role, reason, found.place
    )  # fmt: skip
    parent = None if found is reading.root else found.owner
    return site, SiteLocation(parent, found.key, found.original, found.exact, found)


def _check_patterns(
    include: Sequence[str], exclude: Sequence[str], sites: Mapping[str, Site], unreachable: Iterable[Unreachable]
) -> None:
    """Raise SurgeryError for a pattern that chooses nothing."""
    known = [*sites, *(each.name for each in unreachable)]
    for pattern in (*include, *exclude):
        matched = [name for name in known if fnmatch.fnmatchcase(name, pattern)]
        if pattern == "*" or not known:
            continue
        if not matched:
            raise SurgeryError(f"site pattern {pattern!r} matches no site.{did_you_mean(pattern, known)}")
        gates = {name: sites[name] for name in matched if name in sites and sites[name].role != "activation"}
        if pattern in include and pattern not in sites and len(gates) == len(matched):
            name, gate = next(iter(gates.items()))
            raise SurgeryError(
                f"site pattern {pattern!r} matches gates only ({len(gates)}, such as {name!r}: {gate.function}, "
                f"{gate.reason}). Give the full name of a gate in sites.include to search it"
            )


def _gates_note(gates: Mapping[str, tuple[Site, SiteLocation]]) -> str:
    if not gates:
        return ""
    listed = "; ".join(f"{name!r}: {site.function}, {site.reason}" for name, (site, _) in list(gates.items())[:_LISTED_GATES])
    return (
        f". It has {len(gates)} that are no activations by default ({listed}). "
        "Give the full name of one in sites.include to search it"
    )


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
