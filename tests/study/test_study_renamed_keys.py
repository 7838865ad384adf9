"""Old names of keys are accepted with a warning of one line that names the new key; the study is the same."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from nasact.errors import StudyError
from nasact.study import Study
from nasact.study.renamed_keys import RENAMED, rename_old_keys
from nasact.study.source import read_text

YAML = """
task: {dataset: digits, model: mlp}
search_space: basic
hygiene:
  drop: aliases
  widen: 4
search:
  temperature: {start: 1.0, end: 0.1, slows_alpha: false}
"""


def put(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A tree with `value` at `path`."""
    for part in reversed(path):
        value = {part: value}
    return dict(value)


def test_old_keys_give_the_same_study_as_the_new_keys(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        study = Study.from_yaml(YAML, "old.yaml")
    assert study.spec.redundancy.drop == "aliases"
    assert study.spec.redundancy.input_scale == 4
    assert study.spec.search.temperature.scale_alpha_lr is False
    assert [record.getMessage() for record in caplog.records] == [
        "old.yaml:6: hygiene.widen: this key is now called 'input_scale'; the old name is still accepted",
        "old.yaml:4: hygiene: this key is now called 'redundancy'; the old name is still accepted",
        "old.yaml:8: search.temperature.slows_alpha: this key is now called 'scale_alpha_lr'; "
        "the old name is still accepted",
    ]
    assert "hygiene" not in study.to_yaml()
    new = YAML.replace("hygiene", "redundancy").replace("widen", "input_scale").replace("slows_alpha", "scale_alpha_lr")
    assert Study.from_yaml(new) == study
    assert Study.from_yaml(new).fingerprint() == study.fingerprint()


def test_new_keys_log_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Study.load("digits")
    assert not caplog.records


@pytest.mark.parametrize("path", RENAMED, ids=lambda path: ".".join(path))
def test_every_renamed_key_keeps_its_value_and_its_place_in_the_tree(path: tuple[str, ...]) -> None:
    assert len(RENAMED) >= 3
    tree, _, (message, *_) = rename_old_keys({"name": "x", **put(path, 7), "seed": 3})
    outer = tuple(RENAMED.get(path[: n + 1], path[n]) for n in range(len(path)))
    assert tree == {"name": "x", **put(outer, 7), "seed": 3}
    assert list(tree)[::2] == ["name", "seed"]
    assert repr(RENAMED[path]) in message


@pytest.mark.parametrize("path", RENAMED, ids=lambda path: ".".join(path))
def test_an_old_key_together_with_its_new_name_is_refused(path: tuple[str, ...]) -> None:
    new = RENAMED[path]
    with pytest.raises(StudyError, match=f"is the old name of .*{new}': give one of them only"):
        rename_old_keys(put(path[:-1], {path[-1]: 1, new: 2}))


def test_a_mistake_below_an_old_key_is_reported_with_its_line() -> None:
    with pytest.raises(StudyError) as refused:
        Study.from_yaml(YAML.replace("widen: 4", "widen: 0.5"), "old.yaml")
    assert str(refused.value) == "old.yaml:6: redundancy.input_scale: must be at least 1, but got 0.5"


def test_a_value_that_should_be_a_mapping_is_passed_on_to_the_validation() -> None:
    for tree in ({"hygiene": 3}, {"search": 3}, {"search": {"temperature": 0.5}}, {"search": None}):
        renamed, _, messages = rename_old_keys(tree)
        assert list(renamed.values()) == list(tree.values())
        assert len(messages) == ("hygiene" in tree)


def test_a_study_that_was_run_with_old_keys_has_no_differences() -> None:
    tree, source = read_text(YAML, "old.yaml")
    study = Study.from_tree(tree, source)
    old = {**study.tree, "hygiene": study.tree["redundancy"]}
    del old["redundancy"]
    assert study.differences(old) == []
    assert study.differences({**old, "hygiene": {**old["hygiene"], "drop": "none"}}) == [
        "redundancy.drop: 'none' -> 'aliases'"
    ]
