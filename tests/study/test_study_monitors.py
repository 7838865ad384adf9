"""`search.monitors`, `search.on_collapse` and `outer.prune_by` of a study: accepted forms and refused values."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from nasact.errors import StudyError
from nasact.monitors import build_monitors
from nasact.monitors.hessian import Hessian
from nasact.monitors.weights import Weights
from nasact.study import Study
from nasact.study.schema import json_schema

LEAST: dict[str, Any] = {"task": {"dataset": "digits", "model": "mlp"}, "search_space": "basic"}


def study(*monitors: Any, prune_by: str = "val_accuracy", **search: Any) -> Study:
    return Study.from_tree({**LEAST, "search": {"monitors": list(monitors), **search}, "outer": {"prune_by": prune_by}})


def test_by_default_weights_are_monitored_and_a_collapse_is_reported() -> None:
    tree = Study.from_tree(LEAST).tree
    assert tree["search"]["monitors"] == [{"name": "weights"}]
    assert (tree["search"]["on_collapse"], tree["outer"]["prune_by"]) == ("report", "val_accuracy")
    assert study().spec.search.monitors == ()


def test_names_mappings_and_domains_can_be_mixed_and_survive_a_round_trip() -> None:
    factor = {"low": 1, "high": 2}
    written = study("weights", {"name": "hessian", "every": 1, "factor": factor}, epochs=40, on_collapse="roll_back")
    assert list(written.parameters) == ["search.monitors.1.factor"]
    assert Study.from_yaml(written.to_yaml()) == written
    spec = written.fill({"search.monitors.1.factor": 1.5})
    assert build_monitors(spec.search.monitors) == (Weights(), Hessian(every=1, factor=1.5))


def test_the_schema_accepts_what_the_study_accepts() -> None:
    monitors = ["weights", {"name": "hessian", "every": {"choice": [1, 2]}}]
    tree = {**LEAST, "search": {"monitors": monitors, "on_collapse": "stop", "epochs": 40}}
    jsonschema.validate({**tree, "outer": {"prune_by": "identity_mass"}}, json_schema())
    Study.from_tree({**tree, "outer": {"prune_by": "identity_mass"}})


def test_a_trials_key_depends_on_its_monitors_and_not_on_the_pruning_metric() -> None:
    keys = {
        study(*monitors).spec.key() for monitors in ((), ("weights",), ({"name": "weights", "most_identity": 0.5},))
    }
    assert len(keys) == 3
    assert study("weights").spec.key() == study("weights", prune_by="identity_mass").spec.key()
    assert study("weights").fingerprint() != study("weights", prune_by="identity_mass").fingerprint()


@pytest.mark.parametrize("metric", ["val_loss", "entropy", "identity_mass", "entropy.act1", "max_weight.layer1.0.act"])
def test_every_metric_of_the_search_or_its_monitors_can_prune(metric: str) -> None:
    assert study("weights", prune_by=metric).spec.outer.prune_by == metric


EAGER = {"name": "hessian", "start": 0, "window": 2, "lag": 1}


@pytest.mark.parametrize(
    ("monitors", "options", "line"),
    [
        (
            ["wieghts"],
            {},
            "search.monitors.0.name: unknown monitor 'wieghts'. Did you mean 'weights'? (nasact list ",
        ),
        (["weights", "weights"], {}, "search.monitors: 'weights' is given twice"),
        ([{"name": "hessian", "evry": 1}], {}, "search.monitors.0.evry: unknown option 'evry' of monitor 'hessian'."),
        ([{"name": "hessian", "every": 0}], {}, "search.monitors.0.every: must be at least 1, but got 0"),
        (
            ["weights", {"name": "hessian", "every": 30}],
            {},
            "search.monitors.1.every: must not be larger than search.epochs, but got (every=30, epochs=20)",
        ),
        (["weights"], {"on_collapse": "rollback"}, "unknown reaction to a collapse 'rollback'. Did you mean 'roll_bac"),
        (
            ["weights"],
            {"on_collapse": "stop"},
            "search.on_collapse: 'stop', but no monitor can detect a collapse: add hessian, or weights with",
        ),
        (
            ["hessian"],
            {"on_collapse": "roll_back"},
            "search.on_collapse: 'roll_back', but no monitor can detect a collapse: search.epochs is 20, and 'hessian' "
            "detects one at epoch 22 at the earliest",
        ),
        ([EAGER], {"on_collapse": "stop", "epochs": {"low": 4, "high": 9}}, "(with search.epochs: 4)"),
        (
            ["weights"],
            {"prune_by": "hessian_eigenvalue"},
            "outer.prune_by: no monitor of the study measures 'hessian_eigenvalue'. "
            "Monitor 'hessian' measures it: add it to",
        ),
        (
            ["weights"],
            {"prune_by": "identty_mass"},
            "measures 'identty_mass'. Did you mean 'identity_mass'? There are: ",
        ),
        ([], {"prune_by": "entropy.act1"}, "Monitor 'weights' measures it: add it to search.monitors"),
    ],
)
def test_contradictions_are_refused_before_training(monitors: list, options: dict, line: str) -> None:
    with pytest.raises(StudyError) as caught:
        study(*monitors, **options)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
