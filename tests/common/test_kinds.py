"""The table of kinds: one row is enough for names, messages, options and lists."""

from __future__ import annotations

import pytest

from nasact.cli.listing import LISTS, kind_rows
from nasact.kinds import KINDS

LISTED = [name for name, kind in KINDS.items() if kind.plural]


@pytest.mark.parametrize("name", KINDS)
def test_the_names_of_a_kind_are_those_of_its_records_and_are_accepted(name: str) -> None:
    assert len(KINDS) >= 19
    kind = KINDS[name]
    assert kind.names() == tuple(kind.records())
    assert len(kind.names()) >= 1
    assert [kind.validate(each) for each in kind.names()] == list(kind.names())


@pytest.mark.parametrize("name", KINDS)
def test_an_unknown_name_is_refused_with_the_nearest_one_and_where_to_look(name: str) -> None:
    kind = KINDS[name]
    known = max(kind.names(), key=len)
    with pytest.raises(ValueError, match=f"unknown {kind.name} '{known}x'") as refused:
        kind.validate(f"{known}x")
    message = str(refused.value)
    assert f"Did you mean {known!r}" in message
    assert (f"nasact list {kind.plural}" if kind.plural else "one of ") in message


@pytest.mark.parametrize("name", LISTED)
def test_a_listed_kind_has_a_row_of_texts_per_name(name: str) -> None:
    assert len(LISTED) >= 10
    kind = KINDS[name]
    rows = kind_rows(kind)
    assert [row["name"] for row in rows] == list(kind.names())
    assert kind.plural in LISTS
    assert all(isinstance(text, str) for row in rows for text in row.values())
    assert all(set(kind.columns) <= set(row) for row in rows)


@pytest.mark.parametrize("name", LISTED)
def test_an_unknown_option_of_every_record_is_refused(name: str) -> None:
    kind = KINDS[name]
    for each, record in kind.records().items():
        if kind.default_options(record) is not None:
            option, message = kind.option_error(each, {"no_such_option": 1}) or (None, "")
            assert (option, "no_such_option" in message) == ("no_such_option", True), each
