"""Every list: a table if the terminal is wide enough for it, entries if not."""

from __future__ import annotations

import pytest

from nasact.cli.listing import LISTS


def test_the_documented_lists_exist() -> None:
    assert set(LISTS) >= {
        "functions",
        "spaces",
        "models",
        "datasets",
        "strategies",
        "regularisers",
        "derivations",
        "monitors",
        "normalisers",
        "kernels",
        "studies",
    }


@pytest.mark.parametrize("what", LISTS)
def test_list_names_everything_at_any_width(here, what: str) -> None:
    rows = here("list", what, "--json").document
    assert len(rows) >= 3
    for columns in (60, 80, 120, 300):
        ran = here("list", what, columns=columns)
        assert (ran.code, ran.err) == (0, "")
        lines = ran.out.splitlines()
        assert lines[0] == f"{what} ({len(rows)})"
        assert max(map(len, lines)) <= columns
        first_words = [line.split("  ")[0] for line in lines if not line.startswith(" ")]
        assert [row["name"] for row in rows] == [name for name in first_words if name in {row["name"] for row in rows}]
        text = " ".join(ran.out.split())
        for row in rows:
            for value in row.values():
                assert value == "-" or " ".join(value.split()) in text
        assert "inspect" not in text
