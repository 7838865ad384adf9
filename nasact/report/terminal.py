"""The output of `nasact search`, `show`, `check` and `list` on a terminal: a result document, a preview, lists."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from nasact.report.comparison_table import comparison_table
from nasact.report.coverage import coverage_facts
from nasact.report.genotype_table import genotype_table
from nasact.report.legend import comparison_legend
from nasact.report.number_text import duration_text, percent_text, points_text
from nasact.report.redundancy_table import redundancy_facts, redundancy_table
from nasact.report.table import Column, Table
from nasact.report.trials_table import trials_table

_MAX_TRIALS = 30
_GAP = 2  # spaces between two columns of a list
_LONG = 50  # a fact with more characters than this starts on a new line


def print_result(document: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the trials, the genotype, the comparison and its legend, as far as the document has them."""
    console = console or _console()
    trials = document["trials"]
    records = sorted(trials["records"], key=lambda trial: trial["number"])
    shown = records if len(records) <= _MAX_TRIALS else _best_trials(records)
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
        console.print(Text(f"{duration_text(seconds)} in all", style="dim"))


def _best_trials(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    best = sorted(records, key=lambda trial: -(trial["value"] if trial["value"] is not None else -1.0))
    return best[:_MAX_TRIALS]


def _gap_text(document: Mapping[str, Any]) -> Text:
    mixture, derived = document["accuracy"]["validation_mixture"], document["accuracy"]["validation_derived"]
    if mixture is None or derived is None:
        return Text("")
    return Text(
        f"validation accuracy: mixture {percent_text(mixture)} %, derived and retrained {percent_text(derived)} %; "
        f"discretisation gap {points_text(mixture - derived)} points",
        style="dim",
    )


def print_preview(preview: Mapping[str, Any], command: str, console: Console | None = None) -> None:
    """Print the plain form of a preview (`nasact check`), and the `command` that runs the study."""
    console = console or _console()
    sites = Table(
        title=f"Study {preview['study']}: {count_text(len(preview['sites']), 'activation site')} in {preview['model']}",
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
            for site in preview["sites"]
        ),
        notes=tuple(_kernel_notes(preview["sites"])),
    )
    console.print(sites)
    console.print()
    _print_facts(console, "Activations that are left alone, or out of reach", coverage_facts(preview))
    console.print(redundancy_table(preview["redundancy"]))
    for name, fact in redundancy_facts(preview["redundancy"]).items():
        _print_fact(console, name, fact)
    console.print()
    costs = {
        "candidates": ", ".join(preview["candidates"]),
        "data": preview["data"],
        "parameters": f"{preview['weights']:,} weights, {count_text(preview['alphas'], 'alpha')}",
        "first batch": f"training loss {preview['train_loss']:.4f}, validation loss {_loss(preview['val_loss'])}",
        "memory": f"{max(1, preview['memory'] / 2**20):,.0f} MiB for parameters, optimisers and one batch (estimate)",
        "search step": f"{1e3 * preview['search_step_seconds']:.1f} ms, {preview['search_steps']:,} steps per trial",
        "one trial": f"about {duration_text(preview['trial_seconds'])}",
        "whole study": f"at most about {duration_text(preview['study_seconds'])} with one worker ({preview['plan']})",
    }
    _print_facts(console, "One batch, and what follows from it", costs.items())
    console.print(Text("The study is valid. Next:", style="green"))
    console.print(Text(f"  {command}"), soft_wrap=True)


def _print_facts(console: Console, title: str, facts: Iterable[tuple[str, str]]) -> None:
    """Print named facts below a title, and an empty line after them."""
    console.print(Text(title, style="bold"))
    for name, fact in facts:
        _print_fact(console, name, fact)
    console.print()


def _print_fact(console: Console, name: str, fact: str) -> None:
    console.print(Text(f"{name:13}" + _wrapped(fact, console.width, " " * 13)[13:]), soft_wrap=True)


def count_text(number: int, noun: str) -> str:
    """`1 site`, `2 sites`, `1,000 sites`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _loss(loss: float | None) -> str:
    return "not used by this strategy" if loss is None else f"{loss:.4f}"


def print_rows(title: str, rows: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """Print records with equal keys as a table if the terminal is wide enough for it.

    If not, each record is its first two fields on one line, and all others below, wrapped.
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
    """Indented lines of at most `width` characters, but with room for 20; words are never broken."""
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


def _kernel_notes(sites: Sequence[Mapping[str, Any]]) -> list[str]:
    """The kernel that computes the mixtures and the reason, one line per group of sites with the same answer."""
    groups: dict[tuple[str, str], list[str]] = {}
    for site in sites:
        groups.setdefault((site["kernel"], site["kernel_why"]), []).append(site["name"])
    return [
        f"kernel {kernel}{'' if len(groups) == 1 else ' at ' + ', '.join(names)}: {why}"
        for (kernel, why), names in groups.items()
    ]
