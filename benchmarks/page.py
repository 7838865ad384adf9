"""Writes what the benchmarks measured into the docs: passages between markers, from results/*.json and the ranking.

Knows results and the pages; measures nothing. `--check` only says whether the pages are in step.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from report import RESULTS, Results, describe, markdown

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "performance.md"
ALGORITHMS = HERE.parent / "docs" / "algorithms.md"
ON_ALGORITHMS = {"results": HERE / "genotypes" / "ranking.json", "derived": RESULTS / "derived.json"}
"""Markers on that page, and where their numbers lie."""
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


def whole(path: Path) -> str:
    """All groups of one script: how good each strategy's genotypes are, or what a derived network keeps."""
    found = Results.read(path)
    if found.quick:
        raise SystemExit(f"{path} is of a run with --quick: its numbers mean nothing")
    parts = [describe(found.machine).replace("\n", "; ") + "."]
    parts += [f"**{group.title}**\n\n{markdown(group.rows, group.measured)}" for group in found.groups]
    return "\n\n".join(parts) + "\n"


def written(page: Path, name: str, wanted: str, *, checking: bool) -> bool:
    """Put `wanted` between the markers `name` of the page; false where `checking` finds something else there."""
    text = page.read_text()
    head, begin, rest = text.partition(f"<!-- begin: {name} (written by benchmarks/page.py) -->\n")
    _, end, tail = rest.partition(f"<!-- end: {name} -->")
    if not begin or not end:
        raise SystemExit(f"{page}: the markers of {name!r} are missing")
    new = f"{head}{begin}\n{wanted}\n{end}{tail}"
    if new != text and checking:
        sys.stdout.write(f"{page.name} is out of step with what was measured: run `python benchmarks/page.py`\n")
        return False
    if new != text:
        page.write_text(new)
        sys.stdout.write(f"wrote {page.name}\n")
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is out of step")
    checking = parser.parse_args().check
    wanted = [(PAGE, "results", passage(read()))]
    wanted += [(ALGORITHMS, name, whole(path)) for name, path in ON_ALGORITHMS.items() if path.exists()]
    in_step = [written(*each, checking=checking) for each in wanted]
    return 0 if all(in_step) else 1


if __name__ == "__main__":
    sys.exit(main())
