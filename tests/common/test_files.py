"""Files are written atomically, and JSON has one rule for nan and infinities."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasact.errors import StoreError
from nasact.files import json_ready, read_json, write_atomically, write_json

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
DOCUMENTS = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner))


@given(DOCUMENTS)
def test_a_json_ready_document_survives_json(document: Any) -> None:
    ready = json_ready(document)
    assert json.loads(json.dumps(ready, allow_nan=False)) == ready
    assert json_ready(ready) == ready


def test_nan_and_infinities_become_null(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": math.nan, "b": [math.inf, 1.5, (-math.inf,)], "ü": 3, 7: True})
    assert read_json(tmp_path / "x.json") == {"a": None, "b": [None, 1.5, [None]], "ü": 3, "7": True}


def test_a_write_that_fails_leaves_the_old_content_and_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        write_json(path, {"new": object()})
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(StoreError, match=r"folder: could not be written: .*; the old content is kept"):
        write_atomically(folder, b"content")
    assert read_json(path) == {"old": 1}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder", "x.json"]


def test_the_old_content_is_moved_to_the_keep_path(tmp_path: Path) -> None:
    path, kept = tmp_path / "x", tmp_path / "x.previous"
    write_atomically(path, b"1", keep=kept)
    write_atomically(path, b"2", keep=kept)
    assert (path.read_bytes(), kept.read_bytes()) == (b"2", b"1")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "file not found"), (b"{", "is not JSON"), (b"[1]", "expected a JSON object, but got a list")],
    ids=["missing", "torn", "list"],
)
def test_an_unreadable_document_is_refused_with_its_path(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError, match=message) as refused:
        read_json(path)
    assert str(refused.value).startswith(f"{path}: ")
