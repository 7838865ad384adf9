"""The result document, a preview and lists on a terminal: what `nasact search`, `show`, `check` and `list` print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from nasact.report.reading import how_to_read
from nasact.report.table import Column, Table
from nasact.report.tables import comparison_table, duration, genotype_table, trials_table

_MOST_TRIALS = 30


def print_result(document: Mapping[str, Any], console: Console | None = None) -> None:
    """Trials, genotype, comparison and how to read it; what is not there yet is left out."""
    console = console or _console()
    trials = document["trials"]
    records = sorted(trials["records"], key=lambda trial: trial["number"])
    shown = records if len(records) <= _MOST_TRIALS else _best_trials(records)
    console.print(trials_table(shown))
    counts = {state: count for state, count in trials["counts"].items() if count}
    console.print(Text(", ".join(f"{count} {state}" for state, count in counts.items()), style="dim"))
    if document["genotype"] is not None:
        console.print()
        console.print(genotype_table(document["genotype"], f"Derived network (trial {trials['best']})"))
        console.print(_gap_text(document))
    if document["variants"]:
        console.print()
        console.print(comparison_table(document))
        console.print(Text(how_to_read(short=True), style="dim"))
    seconds = document["provenance"].get("seconds")
    if seconds:
        console.print(Text(f"{duration(seconds)} in all", style="dim"))


def _best_trials(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    best = sorted(records, key=lambda trial: -(trial["value"] if trial["value"] is not None else -1.0))
    return best[:_MOST_TRIALS]


def _gap_text(document: Mapping[str, Any]) -> Text:
    mixture, derived = document["accuracy"]["validation_mixture"], document["accuracy"]["validation_derived"]
    if mixture is None or derived is None:
        return Text("")
    return Text(
        f"validation accuracy: mixture {100 * mixture:.2f} %, derived and retrained {100 * derived:.2f} %; "
        f"discretisation gap {100 * (mixture - derived):+.2f} points",
        style="dim",
    )


def print_preview(seen: Mapping[str, Any], console: Console | None = None) -> None:
    """What `nasact check` found out."""
    console = console or _console()
    sites = Table(
        title=f"Study {seen['study']}: {len(seen['sites'])} activation sites in {seen['model']}",
        columns=(
            Column(header="site"),
            Column(header="own function"),
            Column(header="how", hidden_below=60),
            Column(header="input", hidden_below=80),
            Column(header="alphas", right=True),
            Column(header="kernel"),
        ),
        rows=tuple(
            (site["name"], site["function"], site["kind"], site["input"], str(site["alphas"]), site["kernel"])
            for site in seen["sites"]
        ),
        notes=tuple(f"not reached: {missed['name']}: {missed['reason']}" for missed in seen["unreachable"]),
    )
    console.print(sites)
    console.print()
    facts = Table(title="One batch, and what follows from it", columns=(Column(header=""), Column(header="")), rows=(
        ("candidates", ", ".join(seen["candidates"])),
        ("data", seen["data"]),
        ("parameters", f"{seen['weights']:,} weights, {seen['alphas']:,} alphas"),
        ("first batch", f"training loss {seen['train_loss']:.4f}, validation loss {_loss(seen['val_loss'])}"),
        ("memory", f"{seen['memory'] / 2**20:,.0f} MiB for parameters, optimisers and one batch (estimate)"),
        ("search step", f"{1e3 * seen['search_step_seconds']:.1f} ms, {seen['search_steps']:,} steps a trial"),
        ("one trial", f"about {duration(seen['trial_seconds'])}"),
        ("whole study", f"at most about {duration(seen['study_seconds'])} ({seen['plan']})"),
    ))  # fmt: skip
    console.print(facts)
    console.print(Text("The study is valid. nasact search runs it.", style="green"))


def _loss(loss: float | None) -> str:
    return "not used by this strategy" if loss is None else f"{loss:.4f}"


def print_rows(title: str, rows: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """A list of records that have the same keys."""
    console = console or _console()
    headers = list(rows[0]) if rows else []
    columns = tuple(Column(header=header, long="keep" if header == "name" else "wrap") for header in headers)
    cells = tuple(tuple(str(row[header]) for header in headers) for row in rows)
    console.print(Table(title=f"{title} ({len(rows)})", columns=columns, rows=cells))


def _console() -> Console:
    return Console(highlight=False)
