"""What a study does not search: activations that are left alone, and parts out of reach. Works on plain mappings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_LISTED = 3  # of the activations with the same role, function and reason; --json has all


def coverage_facts(preview: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Named sentences on the `gates` and the `unreachable` parts in the document of `nasact check`.

    Gates with the same role, function and reason share a sentence, with their number and the first names. The last
    sentence says how all of this was found.
    """
    gates: Sequence[Mapping[str, str]] = preview["gates"]
    facts = list(_gate_facts(gates))
    facts += [("out of reach", f"{each['name']}: {each['reason']}") for each in preview["unreachable"]]
    if not facts:
        facts.append(("none", "every activation that sites.include and sites.exclude choose is a site"))
    if gates:
        # a gate proper is the likeliest to be wanted
        name = min(gates, key=lambda gate: gate["role"] != "gate")["name"]
        facts.append(("to include", f'add its full name to sites.include: include: ["*", {name}]'))
    passes = f"by an eval and a train pass of a copy on {preview['audit_examples']} examples of the data"
    return [*facts, ("found", f"in the model's code, and checked {passes}")]


def _gate_facts(gates: Sequence[Mapping[str, str]]) -> Iterator[tuple[str, str]]:
    groups: dict[tuple[str, str, str], list[str]] = {}
    for gate in gates:
        groups.setdefault((gate["role"], gate["function"], gate["reason"]), []).append(gate["name"])
    for (role, function, reason), names in groups.items():
        yield role, f"{function} at {_listed(names)}: {reason}"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
