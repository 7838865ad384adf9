"""Every error is described in one line, whatever was raised."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nasact.errors import error_line, one_line


@given(st.text(), st.none() | st.integers(8, 60))
def test_one_line_has_the_same_words_on_one_line(text: str, limit: int | None) -> None:
    line = one_line(text, limit)
    assert len(line.splitlines()) <= 1
    assert "  " not in line
    if limit is None:
        assert line.split() == text.split()
    else:
        assert len(line) <= limit


def test_an_exception_is_its_message_or_its_type() -> None:
    assert one_line(ValueError("a\n  b")) == "a b"
    assert one_line(ValueError()) == error_line(ValueError(" ")) == "ValueError"
    assert error_line(ValueError("a\nb")) == "ValueError: a b"
    assert error_line(ValueError("x" * 50), 20) == "ValueError: xxxxx..."
