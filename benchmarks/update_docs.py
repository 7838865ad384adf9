"""Write the results of the benchmarks into the docs: the passages between markers, from the JSON files.

Knows results and pages; measures nothing. With `--check` it writes nothing and fails if a page is out of step.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from machine import describe_machine
from result_tables import RESULTS, Results, markdown

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
PERFORMANCE, RANKING, SURGERY = DOCS / "performance.md", DOCS / "ranking.md", DOCS / "surgery.md"
ON_RANKING = {"results": HERE / "genotypes" / "ranking.json", "derived": RESULTS / "derived.json"}
"""The markers on the page of the ranking, and the files of their numbers."""
ON_SURGERY = {"cost": RESULTS / "surgery.json"}
"""The marker on the page of surgery, and the file of its numbers."""
SCRIPTS = ("mixture", "steps", "first_call", "table_errors", "table_backends", "kernel_accuracy")
"""The scripts on the page of the mixture op."""


def all_scripts(results: list[Results]) -> str:
    """The rows with targets of all scripts in one table; then every group."""
    with_target = [row for each in results for group in each.groups for row in group.rows if row.verdict]
    parts = ["### Targets", markdown(with_target)]
    for each in results:
        place = describe_machine(each.machine).replace("\n", "; ")
        parts.append(f"### `benchmarks/{each.script}.py`\n\n{place}.")
        for group in each.groups:
            others = [row for row in group.rows if not row.verdict]
            if others:
                parts.append(f"**{group.title}**\n\n{markdown(others, group.measured)}")
    return "\n\n".join(parts) + "\n"


def one_script(results: Results) -> str:
    """The machine and all groups of one script, with the machines of cases that an earlier run measured."""
    place = describe_machine(results.machine)
    parts = [place.replace("\n", "; ") + "."]
    elsewhere: dict[str, list[str]] = {}
    for case, record in results.cases.items():
        if "machine" in record:
            elsewhere.setdefault(record["machine"], []).append(case)
    parts += [f"Other runs: {'; '.join(cases)}: {where.replace(chr(10), '; ')}." for where, cases in elsewhere.items()]
    parts += [f"**{group.title}**\n\n{markdown(group.rows, group.measured)}" for group in results.groups]
    return "\n\n".join(parts) + "\n"


def read_results(path: Path) -> Results:
    """Read a results file. Raises SystemExit if it comes from a smoke test."""
    results = Results.read(path)
    if results.quick:
        raise SystemExit(f"{path} comes from a run with --quick: its numbers mean nothing")
    return results


def update_passage(page: Path, name: str, text: str, *, checking: bool) -> bool:
    """Put `text` between the markers `name` of the page; if `checking`, only return whether it is there already."""
    before = page.read_text()
    head, begin, rest = before.partition(f"<!-- begin: {name} (written by benchmarks/update_docs.py) -->\n")
    _, end, tail = rest.partition(f"<!-- end: {name} -->")
    if not begin or not end:
        raise SystemExit(f"{page}: the markers of {name!r} are missing")
    after = f"{head}{begin}\n{text}\n{end}{tail}"
    if after != before and checking:
        sys.stdout.write(f"{page.name} is out of step with the results: run `python benchmarks/update_docs.py`\n")
        return False
    if after != before:
        page.write_text(after)
        sys.stdout.write(f"wrote {page.name}\n")
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is out of step")
    checking = parser.parse_args().check
    paths = [RESULTS / f"{script}.json" for script in SCRIPTS]
    passages = [(PERFORMANCE, "results", all_scripts([read_results(path) for path in paths if path.exists()]))]
    for page, markers in ((RANKING, ON_RANKING), (SURGERY, ON_SURGERY)):
        passages += [(page, name, one_script(read_results(path))) for name, path in markers.items() if path.exists()]
    in_step = [update_passage(*passage, checking=checking) for passage in passages]
    return 0 if all(in_step) else 1


if __name__ == "__main__":
    sys.exit(main())
