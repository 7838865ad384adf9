"""docs/algorithms.md promises what a test shows: the tests it names exist, and no hypergradient is left out."""

from __future__ import annotations

import re
from pathlib import Path

from nasact.bilevel import HYPERGRADIENTS, STRATEGIES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "algorithms.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under `## heading`, without its head."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def named_in(text: str) -> set[str]:
    return set(re.findall(r"`(test_\w+)`", text))


def test_every_test_that_the_page_names_exists() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    known = set(re.findall(r"^def (test_\w+)\(", code, re.MULTILINE))
    named = named_in(PAGE)
    assert len(named) >= 14
    assert named - known == set()


def test_every_file_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`((?:tests|docs|nasact|benchmarks)/[\w/.]+\.\w+)`", PAGE))
    assert named
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_every_hypergradient_has_a_row_that_names_its_strategy_and_its_tests() -> None:
    table = rows("Hypergradients")
    assert [cells[0].strip("`") for cells in table] == list(HYPERGRADIENTS.names())
    for cells in table:
        name, strategy, *_, shown_by = cells
        assert strategy.split("`")[1] in STRATEGIES, name
        assert "test_keeps_its_promise" in named_in(shown_by), name
