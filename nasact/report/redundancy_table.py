"""The redundancy of a study's candidate set as a table and as facts, from the plain document of `nasact check`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nasact.report.table import Column, Table

_MAX_TERMS = 2  # of a combination that a cell lists by name; --json has all terms, with their coefficients


def redundancy_table(redundancy: Mapping[str, Any]) -> Table:
    """One row per site: range of its inputs, condition number and rank of its bank, redundant candidates."""
    percent = f"{100 * redundancy['tolerance']:g} %"
    return Table(
        title=f"Bank redundancy: the candidates on the inputs of each site, from {redundancy['examples']} examples",
        columns=(
            Column(header="site"),
            Column(header="inputs"),
            Column(header="condition", right=True),
            Column(header="rank", right=True),
            Column(header="redundant", long="wrap"),
        ),
        rows=tuple(_row(site) for site in redundancy["sites"]),
        notes=(
            f"condition: condition number of the centred functions; 1 is best. rank and ~: within {percent} of a "
            "function's variation, up to scale and offset.",
        ),
    )


def _row(site: Mapping[str, Any]) -> tuple[str, ...]:
    if site["silent"]:
        return site["site"], "-", "-", "-", site["silent"]
    condition = "inf" if site["condition_centred"] is None else f"{site['condition_centred']:.3g}"
    redundant = "; ".join(_redundant_text(entry) for entry in site["redundant"]) or "-"
    inputs = f"{site['low']:.2g} to {site['high']:.2g}"
    return site["site"], inputs, condition, f"{site['rank']} of {len(site['candidates'])}", redundant


def _redundant_text(redundant: Mapping[str, Any]) -> str:
    names: Sequence[str] = list(redundant["terms"])
    sign = "~" if "~" in redundant["text"] else "="
    if redundant["kind"] == "constant":
        return str(redundant["text"])
    if len(names) > _MAX_TERMS:
        return f"{redundant['name']} {sign} {len(names)} others"
    return f"{redundant['name']} {sign} {' + '.join(names)}"


def redundancy_facts(redundancy: Mapping[str, Any]) -> dict[str, str]:
    """The three principles, each with yes, no or not known and the reason; then what to do (`advice`)."""
    words = {True: "yes", False: "no", None: "not known"}
    facts = {
        principle["name"]: f"{words[principle['holds']]}: {principle['found']}"
        for principle in redundancy["principles"]
    }
    return {**facts, "advice": redundancy["next"]}
