"""Write the generated parts of the docs: `python docs/generate.py`; `--check` reports whether they match the code.

What a registry, a help text or a record states is written from there, never by hand.
"""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path

import click

from nasact import activations
from nasact.cli.listing import LISTS
from nasact.cli.main import cli
from nasact.kinds import KINDS
from nasact.report.legend import comparison_legend

ROOT = Path(__file__).resolve().parent.parent
PAPERS = "Papers 000 to 004: see [papers.md](papers.md)."
NOTE = "<!-- Written by docs/generate.py (make docs); changes here are lost. -->\n\n"


def cli_reference() -> str:
    """The help of every command, as the terminal shows it."""
    parts = ["# Commands\n"]
    # a fixed width: the help must not depend on the terminal of the caller
    context = click.Context(cli, info_name="nasact", terminal_width=78)
    parts.append(_help(cli, context))
    for name in sorted(cli.commands):
        command = cli.commands[name]
        parts.append(f"## nasact {name}\n")
        parts.append(_help(command, click.Context(command, info_name=name, parent=context)))
    return NOTE + "\n".join(parts)


def _help(command: click.Command, context: click.Context) -> str:
    return f"```text\n{command.get_help(context)}\n```\n"


def catalogue() -> str:
    """Every function and every search space."""
    lines = [
        "# Catalogue of functions\n",
        f"{len(activations.candidates())} functions. Ranges hold at the initial betas.\n",
    ]
    lines += ["| name | formula | range | left | right | monotone | kinks | betas | aliases | source |"]
    lines += ["|" + "---|" * 10]
    for c in activations.candidates():
        betas = ", ".join(f"{beta.name} = {beta.init:g}" for beta in c.betas)
        low, high = (f"{end:.4g}" for end in c.range)
        kinks = ", ".join(f"{kink:g}" for kink in c.kinks)
        name = c.name if c.elementwise else f"{c.name} (couples features: not elementwise)"
        cells = [name, f"`{c.formula}`", f"[{low}, {high}]", c.left, c.right, "yes" if c.monotone else "no", kinks]
        lines.append(_row([*cells, betas, ", ".join(c.aliases), c.source]))
    lines += ["\n# Search spaces\n", "| name | functions | source |", "|---|---|---|"]
    lines += [_row([space.name, ", ".join(space.functions), space.source]) for space in activations.spaces()]
    return NOTE + "\n".join(lines) + "\n"


def reference() -> str:
    """What a study can name, from `nasact list`; functions and search spaces have a page of their own."""
    lines = ["# What a study can name\n", f"{PAPERS}\n"]
    for what, rows_of in LISTS.items():
        if what in ("functions", "spaces"):
            continue
        rows = rows_of()
        headers = list(rows[0])
        lines += [f"## {what.capitalize()}\n", _row(headers), "|" + "---|" * len(headers)]
        lines += [_row([str(row[header]) for header in headers]) for row in rows] + [""]
    assert len(LISTS) >= 10
    return NOTE + "\n".join(lines)


def algorithms() -> str:
    """What the docstring of every record with options states: all strategies, regularisers, monitors, ..."""
    lines = [
        "# What each algorithm computes\n",
        "The docstrings of all records, with the default options. [algorithms.md](algorithms.md) compares them.",
        f"{PAPERS}\n",
    ]
    count = 0
    for kind in KINDS.values():
        records = {name: record for name, record in kind.records().items() if is_dataclass(record)}
        if kind.plural and records and all(isinstance(record, type) for record in records.values()):
            lines.append(f"## {kind.plural.capitalize()}\n")
            for name, record in records.items():
                count += 1
                options = ", ".join(f"{key}={value}" for key, value in (kind.default_options(record) or {}).items())
                lines += [f"### {name}\n", f"Options: {f'`{options}`' if options else 'none'}.\n"]
                lines += [f"{inspect.getdoc(record)}\n"]
    assert count >= 25
    return NOTE + "\n".join(lines)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def readme() -> str:
    """README.md with its generated passage."""
    text = (ROOT / "README.md").read_text()
    begin, end = "<!-- begin: how to read -->\n", "<!-- end: how to read -->"
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    statements = "\n".join(f"- {line}" for line in comparison_legend().splitlines())
    return f"{head}{begin}{statements}\n{end}{tail}"


FILES: dict[str, Callable[[], str]] = {
    "docs/cli.md": cli_reference,
    "docs/catalogue.md": catalogue,
    "docs/reference.md": reference,
    "docs/algorithm-reference.md": algorithms,
    "README.md": readme,
}


def main() -> int:
    checking = "--check" in sys.argv[1:]
    stale = 0
    for name, write in FILES.items():
        path, wanted = ROOT / name, write()
        found = path.read_text() if path.exists() else ""
        if found == wanted:
            continue
        stale += 1
        if checking:
            sys.stdout.writelines(
                difflib.unified_diff(
                    found.splitlines(True), wanted.splitlines(True), f"{name} (found)", f"{name} (wanted)", n=0
                )
            )
        else:
            path.write_text(wanted)
            sys.stdout.write(f"wrote {name}\n")
    if checking and stale:
        sys.stdout.write(f"\n{stale} file(s) do not match the code: run `make docs`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
