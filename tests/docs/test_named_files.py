"""Files and tests that docs, comments and docstrings name: they exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("nasact", "tests", "benchmarks", "docs", "studies", "search_spaces")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
PATH = re.compile(rf"\b(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w\.(?:py|md|ya?ml|json|csv|toml|cpp|h)\b")

MODULE = re.compile(r"`([a-z_]\w*(?:/\w+)*/(?!NAME)\w+\.py)`")
"""A path in backticks: from the repository's root, or from nasact/."""
TOPS = ("", "nasact")
CITED_TEST = re.compile(r"`(?:[\w/.]+::)?(test_\w+)`")


def texts() -> dict[Path, str]:
    """Every page and every file of code, configuration and studies."""
    paths = [*PAGES, ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / ".ci" / "run"]
    for folder in FOLDERS:
        paths += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yaml", ".cpp", ".h")]
    return {path: path.read_text(encoding="utf-8") for path in paths if path != Path(__file__).resolve()}


def test_every_file_that_is_named_exists() -> None:
    named = {(name, path) for path, text in texts().items() for name in PATH.findall(text)}
    assert len({name for name, _ in named}) >= 30
    missing = []
    for name, path in sorted(named):
        # NAME and mine stand for a reader's own file: only their folder has to exist
        needed = Path(name).parent if Path(name).stem in ("NAME", "mine") else Path(name)
        if not (ROOT / needed).exists():
            missing.append(f"{path.relative_to(ROOT)}: {name}")
    assert missing == []


def test_every_module_that_a_page_names_exists() -> None:
    named = {(name, page) for page in PAGES for name in MODULE.findall(page.read_text())}
    assert len({name for name, _ in named}) >= 5
    missing = [(name, page) for name, page in sorted(named) if not any((ROOT / top / name).exists() for top in TOPS)]
    assert [f"{page.relative_to(ROOT)}: {name}" for name, page in missing] == []


def test_every_test_that_a_page_names_exists() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    known = {
        *re.findall(r"^def (test_\w+)\(", code, re.MULTILINE),
        *(path.stem for path in (ROOT / "tests").rglob("*")),
    }
    named = {(name, page.name) for page in PAGES for name in CITED_TEST.findall(page.read_text())}
    assert len({name for name, _ in named}) >= 80
    assert [f"{page}: {name}" for name, page in sorted(named) if name not in known] == []


def test_every_link_between_pages_leads_to_a_file() -> None:
    links = [
        (page, target)
        for page in PAGES
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
        if "://" not in target
    ]
    assert len(links) >= 15
    assert [f"{page.name}: {target}" for page, target in links if not (page.parent / target).exists()] == []


def test_a_page_that_refers_to_a_paper_by_its_number_links_the_list_of_papers() -> None:
    numbered = [page for page in PAGES if page.name != "papers.md" and re.search(r"\b[Pp]aper 00\d", page.read_text())]
    assert len(numbered) >= 2
    assert [page.name for page in numbered if "papers.md" not in page.read_text()] == []


def test_the_list_of_papers_has_every_number_that_is_used() -> None:
    listed = set(re.findall(r"^\| (00\d) \|", (ROOT / "docs" / "papers.md").read_text(), re.MULTILINE))
    used = {number for text in texts().values() for number in re.findall(r"\b[Pp]aper (00\d)\b", text)}
    assert len(used) >= 5
    assert used == listed
