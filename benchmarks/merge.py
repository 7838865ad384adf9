"""Rows of cases that a run leaves out, taken from the results file of an earlier run.

A run of one case then costs the time of that case only. Knows results; knows neither cases nor how they are measured.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machine import describe_machine
from result_tables import Group, Results, Row

Definition = Mapping[str, Any]


@dataclass(frozen=True)
class KeptCases:
    """What an earlier run measured of cases that this run leaves out.

    `records`: what its file holds of each such case, with the machine that measured it. `groups`: all its groups, which
    may also have rows of other cases.
    """

    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    groups: tuple[Group, ...] = ()


def keep_cases(
    path: Path | None,
    settings: Mapping[str, Any],
    running: Collection[str],
    define: Callable[[str], Definition | None],
) -> KeptCases:
    """Return the cases in the results file `path`, other than `running`, whose rows are kept next to those of this run.

    `define` returns the definition that a case has today, None for an unknown case. If the settings of the file differ
    from `settings`, or a case was defined otherwise, one line on stderr says so.
    """
    if path is None or not path.exists():
        return KeptCases()
    earlier = Results.read(path)
    if not earlier.cases:
        _report(f"{path}: its rows are left out of the new results: it does not hold their settings and cases")
        return KeptCases()
    others = {case: record for case, record in earlier.cases.items() if case not in running}
    difference = _difference(earlier.settings, settings)
    if others and difference:
        _report(f"{path}: the rows of {len(others)} other cases are left out of the new results: {difference}")
        return KeptCases()
    records = {}
    for case, record in others.items():
        definition = define(case)
        difference = "there is no such case any more"
        if definition is not None:
            difference = _difference(record["definition"], definition)
        if difference:
            _report(f"{path}: the rows of case {case!r} are left out of the new results: {difference}")
        else:
            records[case] = {"machine": describe_machine(earlier.machine), **record}
    return KeptCases(records, earlier.groups)


def merge_groups(
    earlier: Sequence[Group], groups: Sequence[Group], keep: Callable[[Group, Row], bool]
) -> tuple[Group, ...]:
    """Return `groups` with the rows of `earlier` that `keep` accepts and that `groups` does not have.

    Groups are matched by their titles, rows by `what`. A group from which a row is kept has the order of the earlier
    one, with new rows at its end.
    """
    new = {group.title: group for group in groups}
    merged = dict(new)
    for old in earlier:
        rows = {row.what: row for row in new[old.title].rows} if old.title in new else {}
        kept = {row.what: row for row in old.rows if row.what not in rows and keep(old, row)}
        if kept:
            order = dict.fromkeys([*(row.what for row in old.rows if row.what in kept or row.what in rows), *rows])
            merged[old.title] = Group(old.title, tuple((kept | rows)[what] for what in order), old.measured)
    order = dict.fromkeys([*(old.title for old in earlier if old.title in merged), *merged])
    return tuple(merged[title] for title in order)


def _difference(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first entry that differs, in words; empty if none does. Compared as JSON, where a tuple is a list."""
    before, today = (json.loads(json.dumps(mapping)) for mapping in (dict(earlier), dict(now)))
    for name in today | before:
        if before.get(name) != today.get(name):
            return f"{name} was {before.get(name)!r} and is {today.get(name)!r} in this run"
    return ""


def _report(line: str) -> None:
    sys.stderr.write(line + "\n")
