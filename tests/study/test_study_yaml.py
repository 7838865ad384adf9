"""Reading and writing YAML: numbers, words, line numbers, and round trips."""

from __future__ import annotations

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nasact.errors import StudyError
from nasact.study.source import read_text, write_text


def value(text: str) -> object:
    return read_text(f"key: {text}", "m.yaml")[0]["key"]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1e-4", 1e-4),
        ("1.0e-3", 1e-3),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-2.", -2.0),
        ("+1.5e+3", 1500.0),
        ("1_000.5", 1000.5),
    ],
)
def test_numbers_with_an_exponent_or_a_point_are_floats(text: str, number: float) -> None:
    assert value(text) == number
    assert isinstance(value(text), float)


@pytest.mark.parametrize(("text", "number"), [("20", 20), ("-3", -3), ("0", 0), ("10_000", 10_000), ("+7", 7)])
def test_whole_numbers_are_ints(text: str, number: int) -> None:
    assert value(text) == number
    assert isinstance(value(text), int)


@pytest.mark.parametrize(
    "word", ["yes", "no", "on", "off", "y", "n", "010", "0x10", "1:30", "2024-01-01", "1.2.3", "e5"]
)
def test_words_that_older_yaml_converts_stay_text(word: str) -> None:
    assert value(word) == word


@pytest.mark.parametrize("text", ["'1e-4'", '"20"', "'true'", "'null'"])
def test_quoted_values_are_text(text: str) -> None:
    assert value(text) == text[1:-1]


def test_only_true_and_false_are_booleans() -> None:
    assert (value("true"), value("False")) == (True, False)
    assert value("~") is None
    assert value("") is None


def test_infinity_and_nan_are_floats() -> None:
    infinite, undefined = value("-.inf"), value(".nan")
    assert infinite == -math.inf
    assert isinstance(undefined, float)
    assert math.isnan(undefined)


def test_every_path_has_the_line_number_of_its_key() -> None:
    task = "task:\n  # a comment\n  dataset: digits\n  model:\n    name: mlp\n    hidden:\n      - 64\n      - 32\n"
    text = f"name: x\n\n{task}"
    _, source = read_text(text, "m.yaml")
    lines = {
        ("name",): 1,
        ("task",): 3,
        ("task", "dataset"): 5,
        ("task", "model"): 6,
        ("task", "model", "name"): 7,
        ("task", "model", "hidden", 1): 10,
    }
    assert {path: source.line(path) for path in lines} == lines
    assert source.place(("task", "model", "dropout")) == "m.yaml:6: "
    assert source.place(("unknown",)) == "m.yaml:1: "


def test_anchors_are_accepted_and_exponential_expansion_is_refused() -> None:
    assert read_text("a: &x {lr: 1e-3}\nb: *x", "m.yaml")[0]["b"] == {"lr": 1e-3}
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
    )
    with pytest.raises(StudyError, match="too large"):
        read_text(bomb, "m.yaml")


def test_two_documents_in_a_file_are_refused() -> None:
    with pytest.raises(StudyError, match=r"m\.yaml:2: not valid YAML: but found another document"):
        read_text("a: 1\n---\nb: 2\n", "m.yaml")


LEAVES = st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False) | st.text(max_size=12)
TREES = st.dictionaries(
    st.text(min_size=1, max_size=6),
    st.recursive(
        LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_size=4,
)


@given(TREES)
def test_reading_a_written_tree_gives_the_same_tree(tree: dict[str, object]) -> None:
    assert read_text(write_text(tree), "m.yaml")[0] == tree


@given(st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), LEAVES, max_size=4))
def test_a_written_tree_is_plain_yaml_for_other_readers(tree: dict[str, object]) -> None:
    assert yaml.safe_load(write_text(tree)) == tree


@pytest.mark.parametrize("word", ["1e-4", "yes", "010", "1_0", "null", "2024-01-01", "1:30", "5."])
def test_text_that_looks_like_another_type_is_quoted(word: str) -> None:
    written = write_text({"key": word})
    assert read_text(written, "m.yaml")[0] == {"key": word}
    assert yaml.safe_load(written) == {"key": word}
