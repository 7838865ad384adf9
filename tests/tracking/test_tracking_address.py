"""The address of a tracking store: made absolute, or refused in one line that shows a right one."""

from __future__ import annotations

from pathlib import Path

import pytest

from nasact.errors import StoreError
from nasact.tracking.address import parse_address


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("mlflow.db", "Did you mean 'sqlite:///mlflow.db'?"),
        ("./mlruns", "sqlite:///FILE"),
        ("sqlite://", "sqlite:///FILE"),
        ("sqlite:///:memory:", "sqlite:///FILE"),
        ("sqlit:///mlflow.db", "Did you mean 'sqlite'"),
        ("file:///tmp/mlruns", "sqlite:///FILE"),
        ("http://", "sqlite:///FILE"),
        ("", "sqlite:///FILE"),
    ],
)
def test_an_address_of_no_known_kind_is_refused(uri: str, words: str) -> None:
    with pytest.raises(StoreError, match="--tracking-uri") as caught:
        parse_address(uri)
    assert words in str(caught.value)


def test_addresses_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    address = parse_address("sqlite:///mlflow.db")
    assert address.path == tmp_path / "mlflow.db"
    assert address.uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert address.artifacts == tmp_path / "mlartifacts"
    assert parse_address("http://localhost:5000/").uri == "http://localhost:5000"
    assert parse_address("postgresql+psycopg2://u:p@host/db").path is None
