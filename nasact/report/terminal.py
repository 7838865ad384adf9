"""The result document, a preview and lists on a terminal: what `nasact search`, `show`, `check` and `list` print."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from nasact.report.legend import comparison_legend
from nasact.report.redundancy import redundancy_facts, redundancy_table
from nasact.report.table import Column, Table
from nasact.report.tables import comparison_table, duration, genotype_table, trials_table

_MOST_TRIALS = 30
_GAP = 2  # spaces between two columns of a list
_LONG = 50  # characters of a fact that gets lines of its own


def print_result(document: Mapping[str, Any], console: Console | None = None) -> None:
    """Trials, genotype, comparison and how to read it; what is not there yet is left out."""
    console = console or _console()
    trials = document["trials"]
    records = sorted(trials["records"], key=lambda trial: trial["number"])
    shown = records if len(records) <= _MOST_TRIALS else _best_trials(records)
    console.print(trials_table(shown))
    counts = [f"{count} {status}" for status, count in trials["counts"].items() if count]
    console.print(Text(", ".join(counts), style="dim"))
    if document["genotype"] is not None:
        console.print()
        console.print(genotype_table(document["genotype"], f"Derived network (trial {trials['best']})"))
        console.print(_gap_text(document))
    if document["variants"]:
        console.print()
        console.print(comparison_table(document))
        console.print(Text(comparison_legend(short=True), style="dim"))
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


def print_preview(seen: Mapping[str, Any], command: str, console: Console | None = None) -> None:
    """What `nasact check` found out, and the `command` that runs the study."""
    console = console or _console()
    sites = Table(
        title=f"Study {seen['study']}: {counted(len(seen['sites']), 'activation site')} in {seen['model']}",
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
        notes=(
            *(f"not reached: {missed['name']}: {missed['reason']}" for missed in seen["unreachable"]),
            *_kernels(seen["sites"]),
        ),
    )
    console.print(sites)
    console.print()
    console.print(redundancy_table(seen["redundancy"]))
    for name, fact in redundancy_facts(seen["redundancy"]).items():
        _print_fact(console, name, fact)
    console.print()
    console.print(Text("One batch, and what follows from it", style="bold"))
    facts = {
        "candidates": ", ".join(seen["candidates"]),
        "data": seen["data"],
        "parameters": f"{seen['weights']:,} weights, {counted(seen['alphas'], 'alpha')}",
        "first batch": f"training loss {seen['train_loss']:.4f}, validation loss {_loss(seen['val_loss'])}",
        "memory": f"{max(1, seen['memory'] / 2**20):,.0f} MiB for parameters, optimisers and one batch (estimate)",
        "search step": f"{1e3 * seen['search_step_seconds']:.1f} ms, {seen['search_steps']:,} steps a trial",
        "one trial": f"about {duration(seen['trial_seconds'])}",
        "whole study": f"at most about {duration(seen['study_seconds'])} with one worker ({seen['plan']})",
    }
    for name, fact in facts.items():
        _print_fact(console, name, fact)
    console.print()
    console.print(Text("The study is valid. Next:", style="green"))
    console.print(Text(f"  {command}"), soft_wrap=True)


def _print_fact(console: Console, name: str, fact: str) -> None:
    console.print(Text(f"{name:13}" + _wrapped(fact, console.width, " " * 13)[13:]), soft_wrap=True)


def counted(number: int, noun: str) -> str:
    """`1 site`, `2 sites`, `1,000 sites`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _loss(loss: float | None) -> str:
    return "not used by this strategy" if loss is None else f"{loss:.4f}"


def print_rows(title: str, rows: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """A list of records that have the same keys: a table where the terminal is wide enough for all of it.

    Elsewhere each record is its name, its second field beside it, and all that is left below, wrapped.
    """
    console = console or _console()
    console.print(Text(f"{title} ({len(rows)})", style="bold"))
    if not rows:
        return
    widths = {key: max(len(key), *(len(str(row[key])) for row in rows)) for key in rows[0]}
    if sum(widths.values()) + _GAP * (len(widths) - 1) <= console.width:
        head = "  ".join(key.ljust(width) for key, width in widths.items())
        console.print(Text(f"{head}\n{'─' * len(head)}"), soft_wrap=True)
        for row in rows:
            line = "  ".join(str(row[key]).ljust(width) for key, width in widths.items())
            console.print(Text(line.rstrip()), soft_wrap=True)
        return
    name, main, *rest = widths
    indent = " " * (widths[name] + _GAP)
    for row in rows:
        lines = _wrapped(str(row[main]), console.width, indent)
        entry = Text(str(row[name]).ljust(len(indent)) + lines[len(indent) :], style="")
        entry.stylize("bold", 0, len(str(row[name])))
        console.print(entry, soft_wrap=True)
        facts = [f"{key}: {row[key]}" for key in rest if str(row[key]) not in ("", "-")]
        long = [fact for fact in facts if len(fact) > _LONG]
        short = "; ".join(fact for fact in facts if fact not in long)
        for fact in filter(None, (short, *long)):
            console.print(Text(_wrapped(fact, console.width, indent), style="dim"), soft_wrap=True)


def _wrapped(text: str, width: int, indent: str) -> str:
    """At least 20 characters a line, however narrow the terminal; never broken inside of a word."""
    lines = textwrap.wrap(
        text,
        max(len(indent) + 20, width),
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return "\n".join(lines) or indent


def _console() -> Console:
    return Console(highlight=False)


def _kernels(sites: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which kernel computes the mixtures and why, a line for all sites of which the same is true."""
    alike: dict[tuple[str, str], list[str]] = {}
    for site in sites:
        alike.setdefault((site["kernel"], site["kernel_why"]), []).append(site["name"])
    return [
        f"kernel {kernel}{'' if len(alike) == 1 else ' at ' + ', '.join(names)}: {why}"
        for (kernel, why), names in alike.items()
    ]
