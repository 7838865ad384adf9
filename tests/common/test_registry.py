"""A registry forgets temporary records, and a package imports every file in its folder."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from nasact.errors import NasactError, UnknownName
from nasact.registry import Registry, import_submodules


def test_records_that_are_registered_in_a_temporary_block_are_forgotten_after_it() -> None:
    registry: Registry[int] = Registry("number")
    registry.register("one", 1)
    with registry.temporary():
        registry.register("two", 2)
        registry.register("one", 10, replace=True)
        assert dict(registry.items()) == {"one": 10, "two": 2}
    assert dict(registry.items()) == {"one": 1}
    with pytest.raises(UnknownName, match=r"^unknown number 'two'\."):
        registry.get("two")


def test_a_duplicate_name_is_refused() -> None:
    registry: Registry[int] = Registry("number")
    registry.register("one", 1)
    with pytest.raises(NasactError, match="number 'one' is already registered"):
        registry.register("one", 2)


def test_a_package_imports_its_files_in_the_given_and_then_in_alphabetical_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package_of_records"
    package.mkdir()
    (package / "__init__.py").write_text("ORDER = []\n", encoding="utf-8")
    for name in ("alpha", "beta", "gamma"):
        text = f"from package_of_records import ORDER\nORDER.append({name!r})\n"
        (package / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        module = importlib.import_module("package_of_records")
        import_submodules(module.__name__, module.__path__, first=("gamma",))
        assert module.ORDER == ["gamma", "alpha", "beta"]
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "package_of_records"]:
            del sys.modules[name]
