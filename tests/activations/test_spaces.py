"""The shipped search spaces are those of the papers; a wrong space file is refused in one line that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nasact import activations
from nasact.activations import get_space, load_space, read_space, space_names
from nasact.errors import NasactError, StudyError, UnknownName

BASIC = ("relu", "tanh", "sigmoid", "identity")
MORE = (*BASIC, "silu", "softsign", "softplus", "selu", "hard_sigmoid", "gelu", "elu")

PAPERS = {
    "basic": BASIC,
    "more": MORE,
    "all": (*MORE, "softmax", "sin", "cos"),
    "bansal": ("relu", "tanh", "sin"),
    "tsvetkova": ("relu", "tanh", "leaky_relu", "sin"),
    "flexible_gates": ("sigmoid", "bounded_ramp"),
    "flexible_tanh": ("tanh", "signed_ramp"),
    "flexible_relu": ("relu", "cube", "signed_cbrt"),
    "flexible_prelu": ("relu", "prelu"),
    "manessi_id_relu": ("identity", "relu"),
    "manessi_id_tanh": ("identity", "tanh"),
    "manessi_relu_tanh": ("relu", "tanh"),
    "manessi_id_relu_tanh": ("identity", "relu", "tanh"),
    "modern": ("relu", "silu", "gelu", "mish", "hard_swish", "squared_relu", "golu", "snake", "elu", "tanh"),
}


def test_every_shipped_space_is_checked() -> None:
    assert set(space_names()) == set(PAPERS)
    assert len(activations.spaces()) == len(PAPERS) >= 14


@pytest.mark.parametrize("name", PAPERS)
def test_a_shipped_space_holds_the_papers_functions(name: str) -> None:
    space = get_space(name)
    assert load_space(name) == space.functions == PAPERS[name]
    assert space.name == name
    assert space.source
    assert space.description
    assert all(activations.get(function).name == function for function in space.functions)


def test_an_unknown_space_lists_near_matches() -> None:
    with pytest.raises(
        UnknownName, match=r"^unknown search space 'basci'\. Did you mean 'basic'\? \(nasact list spaces\)"
    ):
        load_space("basci")


def test_a_user_s_space_is_loaded_by_path_with_canonical_names(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nfunctions:\n  - swish\n  - linear\n", encoding="utf-8")
    assert load_space(str(path)) == ("silu", "identity")


@pytest.mark.parametrize(
    ("text", "error", "line"),
    [
        ("name: bad\nfunctions: [relu]\nfuntions: [tanh]\n", StudyError, r":3: unknown key 'funtions'\. Did you mean"),
        (
            "name: bad\nfunctions: [relu, thanh]\n",
            UnknownName,
            r":2: functions: unknown function 'thanh'\. Did you mean",
        ),
        ("name: bad\nfunctions: []\n", StudyError, r":2: functions: the list is empty"),
        ("name: bad\nfunctions: [relu, relu]\n", StudyError, r":2: functions: 'relu' is given twice"),
        ("name: bad\nfunctions: [swish, silu]\n", StudyError, r"'silu' is the same function as 'swish'"),
        ("name: bad\nfunctions: relu\n", StudyError, r":2: functions: expected a list"),
        ("name: bad\nfunctions: [1]\n", StudyError, r":2: functions: expected a text, but got '1'"),
        ("name: bad\nfunctions: [[relu]]\n", StudyError, r":2: functions: expected a text, but got a list"),
        ("name: bad\n", StudyError, r": the key 'functions' is missing"),
        ("functions: [relu]\n", StudyError, r": the key 'name' is missing"),
        ("name: other\nfunctions: [relu]\n", StudyError, r":1: name: must be 'bad' like the file, not 'other'"),
        ("name: bad\nname: bad\nfunctions: [relu]\n", StudyError, r":2: the key 'name' is given twice"),
        ("name: bad\nfunctions: [relu]\nsource: 5\n", StudyError, r":3: source: expected a text, but got '5'"),
        ("- relu\n", StudyError, r": expected a mapping with the keys name, functions, source, description"),
        ("", StudyError, r": expected a mapping"),
        ("name: [bad\n", StudyError, r":\d: not valid YAML"),
        ("name: bad\x00\n", StudyError, r": not valid YAML"),
    ],
)
def test_a_wrong_space_file_is_refused_in_one_line_that_names_the_file(
    tmp_path: Path, text: str, error: type[NasactError], line: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(error, match=line) as caught:
        read_space(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_or_unreadable_space_file_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"gone\.yaml: this search space file does not exist$"):
        load_space(str(tmp_path / "gone.yaml"))
    path = tmp_path / "latin.yaml"
    path.write_bytes("name: é".encode("latin-1"))
    with pytest.raises(StudyError, match=r"latin\.yaml: cannot be read"):
        load_space(str(path))
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(StudyError, match=r"folder\.yaml: cannot be read"):
        load_space(str(tmp_path / "folder.yaml"))
