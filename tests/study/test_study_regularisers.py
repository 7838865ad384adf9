"""`search.regularisers` of a study: accepted forms, domains, and refused values."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from nasact.bilevel import build_regularisers
from nasact.bilevel.regularisers.entropy import Entropy
from nasact.bilevel.regularisers.layer_mean import LayerMean
from nasact.errors import StudyError
from nasact.study import Study
from nasact.study.schema import json_schema

LEAST: dict[str, Any] = {"task": {"dataset": "digits", "model": "mlp"}, "search_space": "basic"}


def study(*regularisers: Any, **search: Any) -> Study:
    return Study.from_tree({**LEAST, "search": {"regularisers": list(regularisers), **search}})


def test_by_default_there_are_no_regularisers() -> None:
    assert Study.from_tree(LEAST).tree["search"]["regularisers"] == []


def test_names_mappings_and_domains_can_be_mixed_and_survive_a_round_trip() -> None:
    coefficient = {"low": 1, "high": 10, "log": True}
    written = study("l2", {"name": "entropy", "coefficient": coefficient, "start": {"choice": [0.2, 0.5]}})
    assert list(written.parameters) == ["search.regularisers.1.coefficient", "search.regularisers.1.start"]
    assert Study.from_yaml(written.to_yaml()) == written
    spec = written.fill({"search.regularisers.1.coefficient": 2.5, "search.regularisers.1.start": 0.2})
    assert build_regularisers(spec.search.regularisers)[1] == Entropy(coefficient=2.5, start=0.2)
    assert spec.to_tree()["search"]["regularisers"] == [
        {"name": "l2"},
        {"name": "entropy", "coefficient": 2.5, "start": 0.2},
    ]


def test_per_site_coefficients_are_a_list_of_numbers() -> None:
    spec = study({"name": "layer_mean", "per_site": [1, 0.5]}, level="channel").spec
    assert build_regularisers(spec.search.regularisers) == (LayerMean(per_site=(1.0, 0.5)),)


def test_the_schema_accepts_what_the_study_accepts() -> None:
    tree = {**LEAST, "search": {"regularisers": ["l2", {"name": "entropy", "coefficient": {"low": 0.1, "high": 1.0}}]}}
    jsonschema.validate(tree, json_schema())


def test_a_trials_key_depends_on_its_regularisers() -> None:
    keys = {
        study(*regularisers).spec.key()
        for regularisers in ((), ("l2",), ({"name": "l2", "coefficient": 0.1},), ("entropy",))
    }
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("regularisers", "search", "line"),
    [
        (["entropi"], {}, "search.regularisers.0.name: unknown regulariser 'entropi'. Did you mean 'entropy'?"),
        (["entropy", "l2", "entropy"], {}, "search.regularisers: 'entropy' is given twice"),
        ([{"name": "l2", "coefficent": 1}], {}, "search.regularisers.0.coefficent: unknown option 'coefficent' of reg"),
        (
            ["l2", {"name": "entropy", "coefficient": {"low": -1, "high": 1}}],
            {},
            "search.regularisers.1.coefficient: must be a positive number, but got -1.0",
        ),
        (["entropy"], {"normaliser": "affine"}, "search.regularisers.0: regulariser 'entropy' cannot be applied: the"),
        (["beta_decay"], {"normaliser": "convex"}, "logits of a softmax"),
        (["sdarts"], {"strategy": "joint"}, "perturbs steps of only the weights, but the strategy"),
        (
            ["sdarts"],
            {"strategy": {"name": "darts", "update": "simultaneous"}},
            "the strategy updates weights and alpha in one",
        ),
        (["layer_mean"], {}, "at level 'layer' a site has one vector, which is its own mean"),
        ([{"name": "layer_mean", "delta": 1, "benchmark": "selu"}], {}, "its benchmark 'selu' is not among the candid"),
    ],
)
def test_contradictions_are_refused_before_training(regularisers: list, search: dict, line: str) -> None:
    with pytest.raises(StudyError) as caught:
        study(*regularisers, **search)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_normaliser_of_a_choice_must_fit_the_regulariser() -> None:
    with pytest.raises(StudyError, match=r"cannot be applied: .* \(with search.normaliser: 'affine'\)"):
        study("entropy", normaliser={"choice": ["softmax", "affine"]})
