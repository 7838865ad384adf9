"""Writes what the benchmarks measured into docs/performance.md: the passage between its markers, from results/*.json.

Knows results and the page; measures nothing. `--check` only says whether the page is in step.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from report import RESULTS, Results, describe, markdown

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- begin: results (written by benchmarks/page.py) -->\n", "<!-- end: results -->"
SCRIPTS = ("mixture", "steps", "first_call", "errors", "tools", "accuracy")


def passage(results: list[Results]) -> str:
    """The rows with targets first, in one table; then every group."""
    aimed_at = [row for found in results for group in found.groups for row in group.rows if row.verdict]
    parts = ["### Targets", markdown(aimed_at)]
    for found in results:
        place = describe(found.machine).replace("\n", "; ")
        parts.append(f"### `benchmarks/{found.script}.py`\n\n{place}.")
        for group in found.groups:
            others = [row for row in group.rows if not row.verdict]
            if others:
                parts.append(f"**{group.title}**\n\n{markdown(others, group.measured)}")
    return "\n\n".join(parts) + "\n"


def read() -> list[Results]:
    paths = [RESULTS / f"{script}.json" for script in SCRIPTS]
    results = [Results.read(path) for path in paths if path.exists()]
    smoke = [found.script for found in results if found.quick]
    if smoke:
        raise SystemExit(f"{RESULTS}/{smoke[0]}.json is of a run with --quick: its numbers mean nothing")
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page is out of step")
    checking = parser.parse_args().check
    text = PAGE.read_text()
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE}: the markers of the results are missing")
    wanted = f"{head}{BEGIN}\n{passage(read())}\n{END}{tail}"
    if wanted == text:
        return 0
    if checking:
        sys.stdout.write(f"{PAGE.name} is out of step with benchmarks/results: run `python benchmarks/page.py`\n")
        return 1
    PAGE.write_text(wanted)
    sys.stdout.write(f"wrote {PAGE.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
