"""The redundancy of a study's candidate set as a table and a few lines, from the plain document that `check` has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nasact.report.table import Column, Table

_MOST_TERMS = 2  # of a combination that is spelt out in a cell; --json has all, with their coefficients


def redundancy_table(seen: Mapping[str, Any]) -> Table:
    """A row a site: what it sees, how well its bank is conditioned, who is redundant there."""
    percent = f"{100 * seen['tolerance']:g} %"
    return Table(
        title=f"Bank redundancy: the candidates at what each site sees of {seen['examples']} examples",
        columns=(
            Column(header="site"),
            Column(header="inputs"),
            Column(header="condition", right=True),
            Column(header="rank", right=True),
            Column(header="redundant", long="wrap"),
        ),
        rows=tuple(_row(site) for site in seen["sites"]),
        notes=(
            f"condition: of the functions without their means; 1 is best. rank, ~: within {percent} of a function's "
            "variation, up to scale and offset.",
        ),
    )


def _row(site: Mapping[str, Any]) -> tuple[str, ...]:
    if site["silent"]:
        return site["site"], "-", "-", "-", site["silent"]
    condition = "inf" if site["condition_centred"] is None else f"{site['condition_centred']:.3g}"
    redundant = "; ".join(_short(each) for each in site["redundant"]) or "-"
    inputs = f"{site['low']:.2g} to {site['high']:.2g}"
    return site["site"], inputs, condition, f"{site['rank']} of {len(site['candidates'])}", redundant


def _short(redundant: Mapping[str, Any]) -> str:
    names: Sequence[str] = list(redundant["terms"])
    sign = "~" if "~" in redundant["text"] else "="
    if redundant["kind"] == "constant":
        return str(redundant["text"])
    if len(names) > _MOST_TERMS:
        return f"{redundant['name']} {sign} {len(names)} others"
    return f"{redundant['name']} {sign} {' + '.join(names)}"


def redundancy_facts(seen: Mapping[str, Any]) -> dict[str, str]:
    """The three principles, and what to do."""
    words = {True: "yes", False: "no", None: "not known"}
    facts = {each["name"]: f"{words[each['holds']]}: {each['found']}" for each in seen["principles"]}
    return {**facts, "advice": seen["next"]}
