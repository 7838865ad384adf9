"""The tables of derived.py, from the outcomes of its trainings, and the rows that an earlier run measured.

Knows tasks, cases and statistics; trains nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from derived_cases import ALL_TASKS, SINGLES, SMOKE, TARGET_CASE, TASKS, Job, Outcome, Task, Tree, find_case
from merge import KeptCases, keep_cases, merge_groups
from result_tables import Group, Results, Row

from nasact.report.statistics import compare_variants, mean, std


class Runs(dict[int, Outcome]):
    """The outcomes of one function or case, by seed."""

    def column(self, what: str, seeds: Iterable[int]) -> list[float]:
        return [self[seed][what] for seed in seeds]


def spread(values: Sequence[float], unit: str) -> str:
    return f"{mean(values):{'+' if unit == 'points' else ''}.2f} {unit} (sd {std(values):.2f})"


def row(what: str, values: Sequence[float], unit: str, shown: str, **rest: Any) -> Row:
    return Row(what=what, value=mean(values), low=min(values), high=max(values), unit=unit, shown=shown, **rest)


def difference(derived: Sequence[float], single: Sequence[float]) -> str:
    """The difference, paired by seed; p as in the comparison of a study: with five seeds it is never below 0.06."""
    contrast = compare_variants(derived, {"single": single})[0]
    low, high = contrast.ci95 or (contrast.difference,) * 2
    return f"{contrast.difference:+.2f} points (95 % interval {low:+.2f} to {high:+.2f}; p {contrast.p:.2g})"


def build_groups(outcomes: Mapping[Job, Outcome]) -> tuple[Group, ...]:
    """The targets; then, for each task, its functions and its cases over the seeds that both have."""
    runs: dict[tuple[str, str], Runs] = {}
    for job, outcome in outcomes.items():
        runs.setdefault((job.task, job.name), Runs())[job.seed] = outcome
    targets, groups = [], []
    for name, task in ALL_TASKS.items():
        singles = {function: runs.get((name, function), Runs()) for function in task.functions}
        if set.intersection(*map(set, singles.values())):
            cases = {case: found for (of, case), found in runs.items() if of == name and case not in singles}
            of_task, tables = task_groups(task, singles, cases)
            targets += of_task
            groups += tables
    return (*([Group(TARGETS, tuple(targets), "mean over seeds")] if targets else []), *groups)


TARGETS = f"Targets, for {TARGET_CASE}"


def task_groups(task: Task, singles: Mapping[str, Runs], cases: Mapping[str, Runs]) -> tuple[list[Row], list[Group]]:
    """The rows with targets of one task, and its tables."""
    seeds = sorted(set.intersection(*map(set, singles.values())))
    best, best_on_test = (
        max(singles, key=lambda name: mean(singles[name].column(split, seeds))) for split in ("val", "test")
    )
    functions, targets, gaps, tests, genotypes = [], [], [], [], []
    for name, runs in singles.items():
        val, test = runs.column("val", seeds), runs.column("test", seeds)
        marks = "; the best single" * (name == best) + "; best on test" * (name == best_on_test)
        functions.append(row(name, val, "%", f"{spread(val, '%')}; {spread(test, '%')}{marks}"))
    functions.sort(key=lambda row: row.value, reverse=True)
    training = mean([seconds for runs in singles.values() for seconds in runs.column("seconds", seeds)])
    for name, runs in cases.items():
        common = sorted(set(runs) & set(seeds))
        if not common:
            continue
        gap, mixture, val, test = (runs.column(what, common) for what in ("gap", "mixture", "val", "test"))
        single = singles[best].column("test", common)
        shortfall = [of_single - of_derived for of_derived, of_single in zip(test, single, strict=True)]
        shown = f"{spread(gap, 'points')}: {mean(mixture):.2f} % - {mean(val):.2f} %; {len(common)} seeds"
        test_difference = difference(test, single)
        gaps.append(row(name, gap, "points", shown))
        tests.append(row(name, test, "%", f"{spread(test, '%')}; {test_difference}"))
        cost = [seconds / training for seconds in runs.column("seconds", common)]
        chosen = " / ".join(" ".join(runs[seed]["functions"]) for seed in common)
        genotypes.append(row(name, cost, "", f"{mean(cost):.1f}: {chosen}"))
        if name == TARGET_CASE:
            targets.append(row(f"discretisation gap, {task.title}", gap, "points", shown, at_most=1.0))
            shown = f"{mean(shortfall):+.2f} points; k = 1 less {best}: {test_difference}"
            targets.append(row(f"best single less k = 1 on test, {task.title}", shortfall, "points", shown,
                               at_most=0.0))  # fmt: skip
    groups = [Group(f"{task.title}: one function at all sites", tuple(functions), "validation; test")]
    for title, rows, heading in (
        ("discretisation gap", gaps, "mixture - derived, validation"),
        ("derived networks, k = 1", tests, f"test; less {best}"),
        ("what was derived, seed by seed", genotypes, "cost in trainings: functions"),
    ):
        groups += [Group(f"{task.title}: {title}", tuple(rows), heading)] if rows else []
    return targets, groups


# ---- rows of earlier runs ---------------------------------------------------------------------------------------


def record_name(task: Task, case: str) -> str:
    """The name of a case on one task in `Results.cases`; `case` is SINGLES for the single functions."""
    return f"{task.title}: {case}"


def definition(record: str) -> Tree | None:
    """The keys of a study in which the case of a record differs from the others; None for an unknown task or case."""
    for task in ALL_TASKS.values():
        case = record.removeprefix(record_name(task, ""))
        if case != record:
            return {} if case == SINGLES else find_case(case)
    return None


def record_of_job(job: Job) -> str:
    """The record that the outcome of a job belongs to."""
    return record_name(ALL_TASKS[job.task], SINGLES if job.case is None else job.name)


def run_settings(seeds: int, quick: bool) -> dict[str, Any]:
    """The settings that all rows share."""
    return {"seeds": seeds, "tasks": {task.title: asdict(task) for task in (SMOKE if quick else TASKS).values()}}


def record_of(group: Group, row: Row) -> str:
    """The record that a row belongs to."""
    for task in ALL_TASKS.values():
        if group.title == TARGETS and row.what.endswith(f", {task.title}"):
            return record_name(task, TARGET_CASE)
        if group.title.startswith(record_name(task, "")):
            return record_name(task, SINGLES if row.what in task.functions else row.what)
    return ""


def keep_other_cases(path: Path | None, jobs: Iterable[Job], settings: Mapping[str, Any]) -> KeptCases:
    """Return the cases in the results file `path` that `jobs` do not measure, if their rows may be kept."""
    return keep_cases(path, settings, {record_of_job(job) for job in jobs}, definition)


def build_results(
    outcomes: Mapping[Job, Outcome], kept: KeptCases, settings: Mapping[str, Any], machine: dict[str, str], quick: bool
) -> Results:
    """The results of `outcomes`, with the rows of the cases that an earlier run measured."""
    groups = build_groups(outcomes)
    cases = {name: {"definition": definition(name)} for name in sorted({record_of_job(job) for job in outcomes})}
    records = {name: record for name, record in kept.records.items() if name not in cases}
    headings = {group.title: group.measured for group in groups}
    for group in kept.groups:
        if records and headings.get(group.title, group.measured) != group.measured:
            # another best single function: differences from two of them cannot stand in one table
            sys.stderr.write(f"earlier rows of {group.title!r} are left out: they are {group.measured!r}, "
                             f"and this run has {headings[group.title]!r}\n")  # fmt: skip
            task = group.title.partition(": ")[0]
            records = {name: record for name, record in records.items() if not name.startswith(f"{task}: ")}
    groups = merge_groups(kept.groups, groups, lambda group, row: record_of(group, row) in records)
    return Results("derived", machine, groups, quick, settings, {**records, **cases})
