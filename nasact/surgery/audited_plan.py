"""A plan that was read, corrected by what a real pass with an example input has shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from nasact.surgery.audit import Audit, MissedCall, markers, run_audit
from nasact.surgery.copying import copy_model
from nasact.surgery.install import install
from nasact.surgery.plan import ROOT, Located, SurgeryPlan, read_plan
from nasact.surgery.roles import role_of_uses
from nasact.surgery.site_records import Site, Unreachable

Example = Tensor | tuple[Any, ...] | Mapping[str, Any]


def audit_plan(model: nn.Module, plan: SurgeryPlan, example: Example) -> SurgeryPlan:
    """`plan` with the roles that the example shows, and with the activations that the reading has missed.

    A copy of the model runs once in eval and once in train mode. Raises SurgeryError if it does not run.
    """
    copied = read_plan(copy_model(model))
    marked = markers({name: location.original for name, (_, location) in copied.every().items()})
    audit = run_audit(install(copied, marked), marked, example)
    every = {name: (_audited(site, audit), location) for name, (site, location) in plan.every().items()}
    in_order = {found.name: every[found.name] for found in plan.found if found.name in every}
    return replace(
        plan,
        sites=_of_role(in_order, activation=True),
        gates=_of_role(in_order, activation=False),
        unreachable=(*plan.unreachable, *_missed(audit.missed, plan.unreachable)),
    )


def _of_role(located: Located, *, activation: bool) -> Located:
    return {name: each for name, each in located.items() if (each[0].role == "activation") is activation}


def _audited(site: Site, audit: Audit) -> Site:
    """The site with the role that the passes have shown."""
    if site.name not in audit.reached:
        if site.role != "activation":
            return site
        return replace(site, role="unused", reason="the example input does not reach it")
    if site.role == "gate" and site.reason.endswith("of its own"):
        return site
    arguments = audit.arguments.get(site.name, frozenset())
    if arguments and "data" not in arguments:
        return replace(site, role="parameter", reason="it is applied to parameters or sizes, not to data")
    uses = audit.uses.get(site.name, frozenset())
    if not uses and site.role not in ("unused", "parameter"):
        return site
    role, reason = role_of_uses(site.function, uses)
    return replace(site, role=role, reason=reason)


def _missed(calls: Iterable[MissedCall], known: Iterable[Unreachable]) -> list[Unreachable]:
    """The activations on data that were applied outside of every site, without parts that are named already."""
    named = {each.name for each in known}
    found: dict[Unreachable, None] = {}
    for call in calls:
        name = call.module or ROOT
        if call.argument != "data" or any(name == each or name.startswith(f"{each}.") for each in named - {ROOT}):
            continue
        if name == ROOT and ROOT in named:
            continue
        place = f"line {call.line} of {call.file}" if call.file else "a module of torch"
        reason = f"{place}: {call.activation} is applied and is no site: no code that was read calls it"
        found[Unreachable(name, reason)] = None
    return list(found)
