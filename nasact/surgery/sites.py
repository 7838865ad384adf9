"""Finds a model's activation sites, chooses those that are searched, and names the parts that cannot be replaced.

`plan_surgery` also records where each site is, for install.py; `find_sites` returns the public part.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from torch import nn

from nasact.errors import SurgeryError, did_you_mean
from nasact.surgery.audited_plan import Example, audit_plan
from nasact.surgery.plan import Located, SurgeryPlan, read_plan
from nasact.surgery.site_records import Site, SiteReport, Unreachable

_LISTED_GATES = 3


def plan_surgery(
    model: nn.Module,
    *,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    partial: bool = False,
    example_input: Example | None = None,
    may_be_empty: bool = False,
) -> SurgeryPlan:
    """Find every chosen site of `model` with its location.

    Raises SurgeryError if a part is unreachable, unless `partial`, or if there is no site, unless `may_be_empty`.
    """
    plan = read_plan(model)
    if example_input is not None:
        plan = audit_plan(model, plan, example_input)
    every = {found.name: plan.every()[found.name] for found in plan.found}
    _check_patterns(include, exclude, {name: site for name, (site, _) in every.items()}, plan.unreachable)
    chosen: Located = {}
    gates: Located = {}
    for name, (site, location) in every.items():
        if _matches(name, exclude):
            continue
        if name in include or (site.role == "activation" and _matches(name, include)):
            chosen[name] = (site, location)
        elif site.role != "activation":
            gates[name] = (site, location)
    missed = tuple(
        each for each in plan.unreachable if _matches(each.name, include) and not _matches(each.name, exclude)
    )
    if missed and not partial:
        listed = "; ".join(f"{each.name!r}: {each.reason}" for each in missed)
        raise SurgeryError(
            f"{len(missed)} part(s) of {type(model).__name__} have activations that cannot be replaced: {listed}. "
            "Exclude them with sites.exclude, or accept partial coverage with sites.partial: true"
        )
    if not chosen and not may_be_empty:
        left = " left" if every or plan.unreachable else ""
        raise SurgeryError(f"{type(model).__name__} has no activation site to search{left}{_gates_note(gates)}")
    return replace(plan, sites=chosen, gates=gates, unreachable=missed)


def find_sites(
    model: nn.Module,
    *,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    partial: bool = True,
    example_input: Example | None = None,
) -> SiteReport:
    """Find the activation sites of `model`, in the order of its forward, and the parts that cannot be reached.

    `include` and `exclude` are shell patterns for site names. The full name of a gate in `include` makes it a site.
    `example_input`: one input of the model (a tuple holds positional arguments, a mapping keyword arguments). The model
    is read, not run, and is not changed; with an example a copy of it runs too, which shows what the reading alone does
    not: sites that no pass reaches, and activations that no code names.
    """
    return plan_surgery(
        model, include=include, exclude=exclude, partial=partial, example_input=example_input, may_be_empty=True
    ).report()


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


def _gates_note(gates: Located) -> str:
    if not gates:
        return ""
    listed = "; ".join(
        f"{name!r}: {site.function}, {site.reason}" for name, (site, _) in list(gates.items())[:_LISTED_GATES]
    )
    return (
        f". It has {len(gates)} that are no activations by default ({listed}). "
        "Give the full name of one in sites.include to search it"
    )


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
