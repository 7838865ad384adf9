"""The docs match the code: their Python runs, their commands parse, their generated parts are up to date."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from nasact.cli.main import cli
from nasact.study import Study

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def blocks(language: str) -> list[tuple[str, str]]:
    """The code blocks of all pages in this language, each with its place."""
    found = []
    for page in PAGES:
        for index, block in enumerate(re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)):
            found.append((f"{page.name}:{index}", block))
    return found


def commands() -> list[str]:
    """Every nasact command in a shell block or in backticks."""
    lines = [line for _, block in blocks("sh") for line in block.splitlines()]
    inline = [text for page in PAGES for text in re.findall(r"`(nasact [^`]+)`", page.read_text())]
    return [text.split("  #")[0].split(" > ")[0].strip() for text in [*lines, *inline] if text.startswith("nasact ")]


@pytest.mark.parametrize(("place", "code"), blocks("python"), ids=lambda value: value if ":" in value[:20] else "")
def test_the_python_of_the_docs_runs(place: str, code: str, tmp_path: Path) -> None:
    # a separate process: an example registers a function, and other tests run over the catalogue; a file, because the
    # source of a class is read from there
    file = tmp_path / "example.py"
    file.write_text(code)
    done = subprocess.run([sys.executable, file], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{place}: {done.stderr}"


def test_the_docs_have_examples_and_commands() -> None:
    assert len(blocks("python")) >= 7
    assert len(set(commands())) >= 10


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_the_commands_of_the_docs_parse(line: str) -> None:
    words = [word for word in shlex.split(line)[1:] if word != "..."]
    if words and words[0] in ("--help", "-h", "--version"):
        return
    name, arguments = words[0], words[1:]
    assert name in cli.commands, f"{line}: there is no command {name!r}"
    placeholders = [word for word in arguments if word.isupper()]
    if "|" in line or placeholders == arguments == []:
        return
    try:
        cli.commands[name].make_context(name, list(arguments), resilient_parsing=False)
    except click.exceptions.MissingParameter:
        pytest.fail(f"{line}: an argument is missing")


def test_the_yaml_of_the_readme_is_a_study() -> None:
    ((_, text),) = [block for block in blocks("yaml") if block[0].startswith("README")]
    study = Study.from_yaml(text)
    assert list(study.parameters) == ["search.strategy.lr"]


@pytest.mark.parametrize("columns", ["60", "200"])
def test_generated_pages_match_the_code_at_every_terminal_width(columns: str) -> None:
    command = [sys.executable, "docs/generate.py", "--check"]
    environment = {**os.environ, "COLUMNS": columns}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
