"""The result document: strict JSON, complete, every field described in the docs."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from nasact.report.result import FIXED_METRICS, SCHEMA, Provenance, result_document

DOC = Path(__file__).resolve().parents[2] / "docs" / "result-schema.md"


def gene(*functions, **more):
    return {"functions": list(functions), "weights": [1.0 / len(functions)] * len(functions), "betas": {}, **more}


def genotype():
    sites = {"net.1": gene("relu"), "net.3": gene("prelu", betas={"prelu_slope": 0.3}, channel_dim=1)}
    return {"schema": 1, "level": "layer", "normaliser": "softmax", "top_k": 1, "sites": sites}


def full(seeds=5):
    accuracies = [0.97 + 0.001 * i for i in range(seeds)]
    variants = {
        name: {
            "name": name,
            "label": name,
            "genotypes": [genotype()],
            "test_accuracies": [accuracy - lag for accuracy in accuracies],
            "val_accuracy": None,
            "diverged": [],
            "parameters": 1000,
            "seconds": 1.0,
        }
        for name, lag in (("original", 0.01), ("derived", 0.0), ("best_single", 0.005))
    }
    metrics = {
        "derived_val_accuracy": 0.96,
        "search_val_accuracy": 0.97,
        "gap": 0.01,
        "seconds": 3.0,
        "max_weight": 0.8,
    }
    trials = [
        {"number": 0, "status": "failed", "params": {"search.lr": 0.1}, "reason": "loss became nan", "metrics": {}},
        {"number": 1, "status": "complete", "params": {"search.lr": 0.01}, "metrics": metrics},
        {"number": 2, "status": "complete", "params": {"search.lr": 0.01}, "value": 0.96, "reused_from": 1},
    ]
    return result_document(
        study={"name": "digits", "fingerprint": "abc", "directory": "runs/digits", "tree": {"name": "digits"}},
        trials=trials,
        provenance=Provenance(seed=0, versions={"torch": "2"}, git="abc", command="nasact search digits", seconds=9.0),
        genotype=genotype(),
        comparison={"variants": variants, "best_single": "tanh"},
        exports={"onnx": "runs/digits/model.onnx"},
        mlflow={"tracking_uri": "sqlite:///mlflow.db", "study": "r0", "trials": {1: "r1"}},
    )


def empty():
    return result_document(study={"name": "digits"}, trials=[], provenance=Provenance(seed=0))


def documented():
    return re.findall(r"^\| `([^`]+)` \|", DOC.read_text(encoding="utf-8"), flags=re.MULTILINE)


def paths(value, known, path=""):
    """Every path in `value`; a key that the docs do not name is a `*` where the docs have one."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {path} | {p for entry in value for p in paths(entry, known, f"{path}[]")} - {f"{path}[]"}
    if not isinstance(value, dict):
        return {path}
    if path and not any(name.startswith((f"{path}.", f"{path}[")) for name in known):
        return {path}
    free = any(name.startswith(f"{path}.*") for name in known)
    found = {path} if path in known else set()
    for key, entry in value.items():
        named = not free or f"{path}.{key}" in known
        found |= paths(entry, known, f"{path}.{key if named else '*'}".lstrip("."))
    return found


def test_docs_describe_exactly_the_fields_of_the_document():
    known = documented()
    assert len(known) > 50
    assert len(known) == len(set(known))
    assert paths(full(), known) == set(known)


def test_without_comparison_and_trials_no_field_is_missing():
    document = empty()
    assert document.keys() == full().keys()
    for key in ("study", "accuracy", "mlflow", "trials", "provenance"):
        assert document[key].keys() == full()[key].keys()
    assert document["genotype"] is None
    assert document["trials"] == {
        "best": None,
        "counts": {"complete": 0, "pruned": 0, "failed": 0, "running": 0, "reused": 0},
        "records": [],
    }


def test_the_document_is_strict_json():
    document = full()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    study = {"name": "x", "tree": {1: (math.nan, math.inf, 2)}}
    odd = result_document(study=study, trials=[], provenance=Provenance(seed=0))
    assert odd["study"]["tree"] == {"1": [None, None, 2]}


def test_the_document_holds_the_result():
    document = full()
    assert document["schema"] == SCHEMA == 2
    assert document["accuracy"]["test"]["mean"] == pytest.approx(0.972)
    assert document["accuracy"]["validation_derived"] == 0.96
    assert document["gap"] == 0.01
    assert document["trials"]["best"] == 1
    assert document["trials"]["counts"] == {"complete": 2, "pruned": 0, "failed": 1, "running": 0, "reused": 1}
    assert [contrast["other"] for contrast in document["contrasts"]] == ["original", "best_single"]
    assert {contrast["verdict"] for contrast in document["contrasts"]} == {"no significant difference"}
    assert document["genotype"]["sites"]["net.3"]["text"] == "prelu"
    assert document["mlflow"]["trial_runs"] == {"1": "r1"}


def test_every_metric_that_a_trial_measured_is_in_every_record():
    measured = ({"gap": 0.1, "new_monitor": 3.0}, None, {"sharpness": math.nan, "alpha_moved": 0.2})
    trials = [{"number": n, "status": "complete", "metrics": metrics} for n, metrics in enumerate(measured)]
    document = result_document(study={"name": "x"}, trials=trials, provenance=Provenance(seed=0))
    records = [record["metrics"] for record in document["trials"]["records"]]
    assert len(records) == 3
    for metrics in records:
        assert list(metrics) == [*FIXED_METRICS, "alpha_moved", "new_monitor", "sharpness"]
    assert [metrics["new_monitor"] for metrics in records] == [3.0, None, None]
    assert [metrics["alpha_moved"] for metrics in records] == [None, None, 0.2]
    assert records[2]["sharpness"] is None


def test_one_seed_has_no_interval():
    document = full(seeds=1)
    assert document["accuracy"]["test"] == {"mean": 0.97, "std": 0.0, "ci95": None, "n": 1}
    assert document["contrasts"][0]["ci95"] is None
