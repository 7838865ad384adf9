"""docs/algorithms.md has every registered algorithm, in the section of its kind, with tests that show its guarantee."""

from __future__ import annotations

import inspect
import re
from itertools import dropwhile, takewhile
from pathlib import Path

import pytest

from nasact.bilevel import HYPERGRADIENTS, REGULARISERS, STRATEGIES
from nasact.derivation import DERIVATIONS
from nasact.monitors import MONITORS
from nasact.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "algorithms.md").read_text()
REFERENCE = (ROOT / "docs" / "algorithm-reference.md").read_text()

# section: the registry, and at least how many names it has
KINDS: dict[str, tuple[Registry, int]] = {
    "Hypergradients": (HYPERGRADIENTS, 6),
    "Strategies": (STRATEGIES, 11),
    "Regularisers": (REGULARISERS, 6),
    "Derivations": (DERIVATIONS, 4),
    "Monitors": (MONITORS, 3),
}


def section(heading: str) -> str:
    return PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under `## heading`, without its head."""
    from_table = dropwhile(lambda line: not line.startswith("|"), section(heading).splitlines())
    lines = list(takewhile(lambda line: line.startswith("|"), from_table))
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def cited_tests(text: str) -> set[str]:
    return set(re.findall(r"`(test_\w+)`", text))


@pytest.mark.parametrize("kind", KINDS)
def test_the_rows_of_a_section_are_registered_names_of_its_kind(kind: str) -> None:
    registry, least = KINDS[kind]
    in_table = [cells[0].strip("`") for cells in rows(kind)]
    assert len(set(in_table)) == len(in_table) >= least
    assert [name for name in in_table if name not in registry] == [], f"docs/algorithms.md, section {kind}"


def test_every_hypergradient_has_a_row() -> None:
    assert sorted(cells[0].strip("`") for cells in rows("Hypergradients")) == sorted(HYPERGRADIENTS.names())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "Hypergradients"])
def test_every_registered_record_is_described_by_its_docstring_in_the_generated_page(kind: str) -> None:
    registry, least = KINDS[kind]
    described = REFERENCE.split(f"\n## {kind}\n", 1)[-1].split("\n## ", 1)[0]
    assert len(registry) >= least
    for name, record in registry.items():
        text = described.split(f"\n### {name}\n", 1)[1].split("\n### ", 1)[0]
        assert (inspect.getdoc(record) or "no docstring") in text


@pytest.mark.parametrize("name", [cells[0].strip("`") for cells in rows("Strategies")])
def test_every_strategy_has_a_paragraph_with_its_source_or_its_formula(name: str) -> None:
    paragraphs = [text for text in section("Strategies").split("\n\n") if re.match(rf"(\*\*)?`{name}`", text)]
    assert len(paragraphs) == 1, (
        f"docs/algorithms.md, section Strategies: expected one paragraph that begins with `{name}`"
    )


@pytest.mark.parametrize(
    "name", [name for cells in rows("Strategies") if len(STRATEGIES.get(name := cells[0].strip("`")).normalisers) == 1]
)
def test_a_strategy_with_a_normaliser_of_its_own_has_a_formula_guarantees_and_differences(name: str) -> None:
    text = section("Strategies").split(f"**`{name}`**", 1)[1].split("\n**`", 1)[0].split("\n### ", 1)[0]
    assert f"`{STRATEGIES.get(name).normalisers[0]}`" in next(
        cells[3] for cells in rows("Strategies") if name in cells[0]
    )
    assert re.search(r"^    \S", text, re.MULTILINE), "a formula, indented by four spaces"
    assert len(cited_tests(text)) >= 2
    assert re.search(r"^- (Different from|Not in) the (published|paper)", text, re.MULTILINE)


@pytest.mark.parametrize("kind", ["Hypergradients", "Regularisers", "Derivations", "Monitors"])
def test_every_row_names_a_test_that_shows_it(kind: str) -> None:
    assert [cells[0] for cells in rows(kind) if not cited_tests(cells[-1])] == []


def test_every_hypergradient_names_its_strategy() -> None:
    for name, strategy, *_, shown_by in rows("Hypergradients"):
        assert strategy.split("`")[1] in STRATEGIES, name
        assert "test_agrees_with_its_exact_answer" in cited_tests(shown_by), name
