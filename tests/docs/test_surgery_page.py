"""docs/surgery.md quotes the refusals as they are, and names what the code has."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import torch
from refusals import AUDITED, NOT_COPIED, OUT_OF_REACH, Net
from torch import nn

from nasact.errors import SurgeryError
from nasact.supernet import find_sites, relax
from nasact.surgery.site_records import Role

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "surgery.md").read_text()


def quoted(heading: str) -> list[str]:
    """The texts in backticks in the first column of the table below a heading, one list item per row."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return [re.findall(r"`([^`]+)`", row)[-1 if "..." in row else 0] for row in rows]


ELSEWHERE = {
    "its file has changed since it was imported",
    "it is wrapped for distributed training",
    "the model is a supernet already",
}
"""Rows with a test of their own, here or in tests/surgery."""


def test_every_quoted_refusal_has_a_model_here() -> None:
    rows = [*quoted("What cannot be reached"), *quoted("Copies of models")]
    assert len(rows) >= 35
    assert set(rows) - ELSEWHERE == {*OUT_OF_REACH, *AUDITED, *NOT_COPIED}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("words", OUT_OF_REACH)
def test_a_part_out_of_reach_is_named_in_these_words(words: str) -> None:
    reasons = [each.reason for each in find_sites(OUT_OF_REACH[words]()).unreachable]
    assert any(words in reason for reason in reasons), reasons


@pytest.mark.parametrize("words", AUDITED)
def test_an_activation_that_only_a_pass_shows_is_named_in_these_words(words: str) -> None:
    assert find_sites(AUDITED[words]()).unreachable == ()
    reasons = [each.reason for each in find_sites(AUDITED[words](), example_input=torch.ones(2, 6)).unreachable]
    assert any(words in reason for reason in reasons), reasons


@pytest.mark.parametrize("words", NOT_COPIED)
def test_a_model_that_cannot_be_copied_is_refused_in_these_words(words: str) -> None:
    with pytest.raises(SurgeryError, match=re.escape(words)):
        relax(NOT_COPIED[words]())


def test_a_supernet_is_refused_in_these_words() -> None:
    with pytest.raises(SurgeryError, match="the model is a supernet already"):
        relax(relax(Net()))


@pytest.fixture(name="edited")
def _edited(tmp_path: Path) -> Iterator[nn.Module]:
    """A model whose file was edited after its import."""
    file = tmp_path / "edited_net.py"
    text = "import torch\nfrom refusals import Net\n\nclass Edited(Net):\n    def forward(self, x):\n        "
    file.write_text(f"{text}return torch.relu(self.a(x))\n")
    spec = importlib.util.spec_from_file_location("edited_net", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["edited_net"] = module
    spec.loader.exec_module(module)
    file.write_text(f"{text}return torch.tanh(self.a(x)) * 2\n")
    yield module.Edited()
    del sys.modules["edited_net"]


def test_an_edited_file_is_named_in_these_words(edited: nn.Module) -> None:
    (unreachable,) = find_sites(edited).unreachable
    assert "its file has changed since it was imported" in unreachable.reason


def test_every_role_but_activation_has_a_row() -> None:
    rows = re.findall(r"^\| (\w+) \|", PAGE.split("What is left alone", 1)[1].split("\n## ", 1)[0], re.MULTILINE)
    assert rows == ["role", *(role for role in get_args(Role) if role != "activation")]
