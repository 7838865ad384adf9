"""MLflow accepts every name and value that the tracker passes to it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasact.tracking.sanitise import (
    MAX_NAME,
    clean_model_name,
    clean_name,
    clean_names,
    param_value,
    tag_values,
    to_floats,
)


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("search/val_accuracy", "search/val_accuracy"),
        ("loss(val)", "loss_val_"),
        ("a//b", "a/b"),
        ("/etc", "etc"),
        ("../up", "__/up"),
        ("a/./b", "a/_/b"),
        ("p[0]=1@50%", "p_0__1_50_"),
        ("", "_"),
        ("/", "_"),
        ("größe", "gr__e"),
        ("/ a / b", "a/b"),
        ("..a/.b", "__a/.b"),
        ("x" * 249 + " y", "x" * 249),
    ],
)
def test_odd_characters_are_replaced(name: str, clean: str) -> None:
    assert clean_name(name) == clean


@given(st.text(alphabet=st.sampled_from("ab01./_- :()[]+=@%äé\n\t\\'\"`"), max_size=300))
@settings(max_examples=300, deadline=None)
def test_mlflow_accepts_every_cleaned_name(name: str) -> None:
    from mlflow.utils.validation import (
        _validate_logged_model_name,
        _validate_metric_name,
        _validate_model_name,
        _validate_param_name,
        _validate_tag_name,
    )

    clean = clean_name(name)
    for check in (_validate_metric_name, _validate_param_name, _validate_tag_name):
        check(clean)
    assert len(clean) <= MAX_NAME
    assert clean_name(clean) == clean
    for check_model in (_validate_logged_model_name, _validate_model_name):
        check_model(clean_model_name(name))


@given(st.lists(st.text(alphabet="a()[]_2", max_size=6)))
def test_two_names_never_get_the_same_clean_name(names: list[str]) -> None:
    clean = clean_names(names)
    assert set(clean) == set(names)
    assert len(set(clean.values())) == len(set(names))


def test_long_names_that_differ_at_the_end_stay_apart() -> None:
    clean = clean_names(["x" * 300 + "a", "x" * 300 + "b"])
    assert len(set(clean.values())) == 2
    assert max(map(len, clean.values())) <= MAX_NAME


@pytest.mark.parametrize(
    ("value", "text"),
    [("relu", "relu"), (0.1, "0.1"), (True, "true"), (None, "null"), ([1, "a"], '[1, "a"]'), (1j, "1j")],
)
def test_parameters_are_text(value: object, text: str) -> None:
    assert param_value(value) == text


def test_long_values_are_truncated() -> None:
    assert len(param_value("x" * 10_000)) == 6000
    assert param_value("x" * 10_000).endswith("...")
    assert len(tag_values({"t": "y" * 10_000})["t"]) == 5000


def test_only_numbers_are_metrics() -> None:
    import numpy as np
    import torch

    given = {"a": 1, "b": np.float32(0.5), "c": torch.tensor(2.0), "d": None, "e": "0.5", "f": torch.zeros(2)}
    assert to_floats(given) == {"a": 1.0, "b": 0.5, "c": 2.0}
