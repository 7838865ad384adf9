"""One small study from its first command to its last: search, show, export, check, MLflow."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

FIELDS = Path(__file__).parents[2] / "docs" / "result-schema.md"


def field_paths() -> dict[str, list[str]]:
    lines = FIELDS.read_text().splitlines()
    paths = [line.split("`")[1] for line in lines if line.startswith("| `")]
    return {path: path.replace("[]", ".[]").split(".") for path in paths}


def values_at(value: Any, path: list[str]) -> list[Any]:
    """Every value at `path`; a null on the way counts as the value."""
    if not path or value is None:
        return [value]
    step, *rest = path
    if step == "[]":
        return [leaf for entry in value for leaf in values_at(entry, rest)]
    if step == "*":
        return [leaf for entry in value.values() for leaf in values_at(entry, rest)]
    assert step in value, f"{step} is missing among {list(value)}"
    return values_at(value[step], rest)


def require_described_keys(value: Any, at: str, paths: set[str]) -> None:
    """Assert that the page describes every field of `value`, which is at the path `at`."""
    if isinstance(value, dict) and f"{at}.*" not in paths and not any(path.startswith(f"{at}.*.") for path in paths):
        for key, entry in value.items():
            here = f"{at}.{key}" if at else key
            described = here in paths or any(path.startswith((f"{here}.", f"{here}[]")) for path in paths)
            assert described, f"{here} is not described"
            if here not in paths or any(path.startswith(f"{here}.") for path in paths):
                require_described_keys(entry, here, paths)


def test_json_is_one_document_and_progress_is_on_stderr(finished) -> None:
    ran = finished.first
    assert ran.code == 0, ran.err
    assert ran.out.startswith("{")
    assert ran.out.endswith("}\n")
    assert ran.document["study"]["name"] == "tiny"
    assert "trial 0 complete" in ran.err
    assert "trial 1 complete" in ran.err
    assert "compared" in ran.err
    assert "Warning" not in ran.err
    assert "Traceback" not in ran.err


def test_document_has_every_field_of_the_docs_and_no_other(finished) -> None:
    paths = field_paths()
    assert len(paths) > 60
    for path in paths.values():
        assert values_at(finished.document, path) is not None
    require_described_keys(finished.document, "", set(paths))


def test_document_holds_the_trials_variants_and_sites_of_the_study(finished) -> None:
    document = finished.document
    assert document["trials"]["counts"]["complete"] == 2
    assert set(document["variants"]) == {"derived", "original", "best_single", "random_mixture"}
    assert all(len(variant["test_accuracies"]) == 2 for variant in document["variants"].values())
    assert list(document["genotype"]["sites"]) == ["act1"]
    assert 0.2 < document["accuracy"]["test"]["mean"] <= 1
    assert Path(finished.folder, document["exports"]["torch"]).is_file()
    assert document["provenance"]["command"].endswith("nasact search tiny.yaml --json --workers 1")


def test_running_again_trains_nothing_and_prints_the_same(finished, here) -> None:
    folder = finished.folder
    files = {path: path.stat().st_mtime_ns for path in (folder / "runs/tiny/trials").rglob("*")}
    assert len(files) >= 4
    ran = here("search", "tiny.yaml", "--json", cwd=folder)
    assert (ran.code, ran.out) == (0, finished.first.out)
    assert {path: path.stat().st_mtime_ns for path in (folder / "runs/tiny/trials").rglob("*")} == files
    assert "trial 0" not in ran.err
    assert not list((folder / "runs/tiny/tracking/staged").iterdir())


def test_result_as_text_names_the_next_steps(finished, here, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "again")
    ran = here("search", "tiny.yaml", "--no-tracking", "--quiet", cwd=folder, columns=80)
    assert ran.code == 0
    assert ran.err == ""
    assert max(map(len, ran.out.splitlines())) <= 100
    for part in ("* ", "Derived network", "act1", "Test accuracy over 2 seeds", "too few seeds", "Next:"):
        assert part in ran.out
    assert "nasact export tiny" in ran.out
    assert "runs/tiny/model.pt" in ran.out


def test_show_as_text_and_as_json(finished, here) -> None:
    text, document = (here("show", "tiny", *more, cwd=finished.folder) for more in ([], ["--json"]))
    assert (text.code, document.code) == (0, 0)
    assert document.document == finished.document
    assert "Test accuracy over 2 seeds" in text.out
    assert text.err == document.err == ""


def test_show_prints_the_result_of_an_older_study_as_it_was_written(finished, here, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "older")
    older = {**finished.document, "schema": 1}
    monitored = ("max_weight", "identity_mass", "hessian_eigenvalue", "discretisation_gap")
    for record in older["trials"]["records"]:
        kept = ("search_val_accuracy", "derived_val_accuracy", "gap", "entropy")
        record["metrics"] = {
            **{name: record["metrics"][name] for name in kept},
            **dict.fromkeys(monitored),
            "seconds": record["metrics"]["seconds"],
        }
    (folder / "runs/tiny/result.json").write_text(json.dumps(older))
    text, document = (here("show", "tiny", *more, cwd=folder) for more in ([], ["--json"]))
    assert (text.code, document.code) == (0, 0)
    assert document.document == older
    assert text.out == here("show", "tiny", cwd=finished.folder).out


def test_show_needs_no_torch(command, finished, tmp_path: Path) -> None:
    script = tmp_path / "show.py"
    script.write_text("import sys\nsys.modules['torch'] = None\nfrom nasact.cli.main import main\nmain()\n")
    import subprocess
    import sys

    arguments = [sys.executable, script, "show", "tiny", "--json"]
    done = subprocess.run(arguments, cwd=finished.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == finished.document


def test_show_prints_the_derived_genotype(finished, here) -> None:
    shown = here("show", "tiny", "--genotype", cwd=finished.folder).document
    assert shown == finished.document["genotype"]


@pytest.mark.parametrize("kind", ["onnx", "pt2", "safetensors"])
def test_export_is_reloaded_and_compared_before_it_is_reported(finished, here, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"net.{kind}"
    ran = here("export", "tiny", "--format", kind, "-o", path, cwd=finished.folder)
    assert ran.code == 0, ran.err
    assert ran.err == ""
    assert path.stat().st_size > 500
    assert str(path) in ran.out
    accuracy = finished.document["variants"]["derived"]["test_accuracies"][0]
    assert "reloaded without nasact" in ran.out
    assert f"test accuracy {accuracy:.4f}, equal" in ran.out


def test_export_is_named_after_the_study_by_default(finished, here, tmp_path: Path) -> None:
    ran = here("export", "tiny", "--dir", finished.folder, cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["tiny.onnx"]


def test_check_prints_sites_and_costs_and_writes_nothing(finished, here, tmp_path: Path) -> None:
    shutil.copy(finished.folder / "tiny.yaml", tmp_path)
    text, document = (here("check", "tiny.yaml", *more, columns=80) for more in ([], ["--json"]))
    assert (text.code, document.code) == (0, 0)
    assert text.err == document.err == ""
    assert max(map(len, text.out.splitlines())) <= 80
    for part in ("1 activation site in mlp", "act1", "left alone", "relu, tanh, sin", "MiB", "nasact search tiny.yaml"):
        assert part in text.out
    assert [site["name"] for site in document.document["sites"]] == ["act1"]
    assert document.document["gates"] == document.document["unreachable"] == []
    assert document.document["candidates"] == ["relu", "tanh", "sin"]
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_mlflow_holds_the_study_as_documented(finished, client_of) -> None:
    import mlflow
    import torch

    from nasact.tracking.mlflow import silence_mlflow

    document = finished.document
    uri = document["mlflow"]["tracking_uri"]
    assert uri == f"sqlite:///{finished.folder / 'mlflow.db'}"
    client = client_of(finished.folder)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = {run.info.run_id: run for run in client.search_runs(experiments)}
    parent, trials = document["mlflow"]["study_run"], document["mlflow"]["trial_runs"]
    assert set(runs) == {parent, *trials.values()}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for number, run_id in trials.items():
        run = runs[run_id]
        record = document["trials"]["records"][int(number)]
        assert run.data.tags["mlflow.parentRunId"] == parent
        assert float(run.data.params["search.strategy.lr"]) == pytest.approx(record["params"]["search.strategy.lr"])
        assert run.data.metrics["derived_val_accuracy"] == pytest.approx(record["value"])
        assert len(client.get_metric_history(run_id, "search/train_loss")) == 6
        names = {file.path for file in client.list_artifacts(run_id)}
        assert {"genotype.json"} <= names
        assert any(file.path.endswith(".png") for file in _files(client, run_id))
    names = {file.path for file in _files(client, parent)}
    assert {"study.yaml", "genotype.json", "comparison.txt"} <= names
    version = client.get_model_version_by_alias("tiny", "champion")
    assert version.run_id == parent
    with silence_mlflow():
        network = mlflow.pyfunc.load_model(version.source)
        logits = network.predict(torch.zeros(5, 1, 8, 8).numpy())
    assert logits.shape == (5, 10)


def _files(client: Any, run_id: str, path: str | None = None) -> list[Any]:
    listed = client.list_artifacts(run_id, path)
    return [file for entry in listed for file in (_files(client, run_id, entry.path) if entry.is_dir else [entry])]


def test_databases_are_closed_properly(finished) -> None:
    for path in (finished.folder / "mlflow.db", finished.folder / "runs/tiny/study.db"):
        with sqlite3.connect(path) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        database.close()
