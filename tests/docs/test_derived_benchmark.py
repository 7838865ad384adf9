"""benchmarks/derived.py: it chooses by validation, caches trainings, tests the final network, keeps earlier rows."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import cifar10
import derived_cases as cases
import derived_results as results
import pytest
from result_tables import Results

from nasact.study import Study

ROOT = Path(__file__).resolve().parents[2]

PUBLISHED = ROOT / "benchmarks" / "results" / "derived.json"
SEEDS = range(5)


def singles(best: str = "tanh") -> dict[cases.Job, cases.Outcome]:
    """Made-up trainings on Fashion-MNIST: `best` is the best function on validation, sin on test."""
    return {
        cases.Job("fashion_mnist", name, seed): {
            "val": 80 + (name == best),
            "test": 70 + (name == best) + 5 * (name == "sin"),
            "seconds": 10,
        }
        for seed in SEEDS
        for name in cases.FUNCTIONS
    }


def trials(test: float, name: str = cases.TARGET_CASE) -> dict[cases.Job, cases.Outcome]:
    """Made-up trials of a case on Fashion-MNIST, whose networks have the accuracy `test`."""
    trial = {"val": 82, "test": test, "functions": ["relu"] * 4, "seconds": 40}
    return {
        cases.Job("fashion_mnist", name, seed): {**trial, "gap": 0.5 + 0.1 * seed, "mixture": 82.5 + 0.1 * seed}
        for seed in SEEDS
    }


def test_every_case_is_a_study_that_derives_one_function_per_site() -> None:
    assert len(cases.CASES) >= 4
    assert cases.TARGET_CASE in cases.CASES
    assert set(cases.CASES).isdisjoint(cases.FUNCTIONS)
    for task in cases.TASKS.values():
        for name, case in cases.CASES.items():
            spec = Study.from_tree(cases.study_tree(task, 3, case)).spec
            assert spec.derive.top_k == 1, name
            assert (spec.search.epochs, spec.retrain.epochs) == (task.epochs, task.epochs), name


@pytest.mark.parametrize(("test", "verdict"), [(71.0, "met"), (70.9, "missed")])
def test_the_best_single_function_is_chosen_by_validation_and_not_by_test(test: float, verdict: str) -> None:
    targets, functions, *_ = results.build_groups(singles() | trials(test))
    assert [row.what for row in functions.rows if "the best single" in row.shown] == ["tanh"]
    assert [row.what for row in functions.rows if "best on test" in row.shown] == ["sin"]
    gap, shortfall = targets.rows
    assert (gap.value, gap.at_most, gap.verdict) == (pytest.approx(0.7), 1.0, "met")
    assert (shortfall.value, shortfall.at_most, shortfall.verdict) == (pytest.approx(71 - test), 0.0, verdict)


def test_a_case_is_compared_over_the_seeds_that_it_has() -> None:
    outcomes = singles() | trials(71.0)
    del outcomes[cases.Job("fashion_mnist", cases.TARGET_CASE, 4)]
    del outcomes[cases.Job("fashion_mnist", "relu", 0)]
    gap, _ = results.build_groups(outcomes)[0].rows
    assert gap.value == pytest.approx(0.7)  # seeds 1, 2 and 3
    assert "3 seeds" in gap.shown


def keep(path: Path, jobs: list[cases.Job]) -> results.KeptCases:
    return results.keep_other_cases(path, jobs, results.run_settings(len(SEEDS), quick=False))


def write(path: Path, outcomes: dict[cases.Job, cases.Outcome]) -> Results:
    """Write the results of these outcomes into `path`, as a run of their cases does."""
    machine = {**Results.read(PUBLISHED).machine, "date": "2030-01-01"}
    settings = results.run_settings(len(SEEDS), quick=False)
    found = results.build_results(outcomes, keep(path, list(outcomes)), settings, machine, quick=False)
    found.write(path)
    return Results.read(path)


def rows(found: Results) -> dict[tuple[str, str], str]:
    return {(group.title, row.what): row.shown for group in found.groups for row in group.rows}


def test_the_published_results_are_those_of_todays_settings_and_cases(capsys: pytest.CaptureFixture[str]) -> None:
    published = Results.read(PUBLISHED)
    assert len(published.cases) >= 6
    assert keep(PUBLISHED, []).records.keys() == published.cases.keys()
    assert {results.record_of(group, row) for group in published.groups for row in group.rows} == set(published.cases)
    assert capsys.readouterr().err == ""


def test_a_run_of_one_case_keeps_the_rows_of_all_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(shutil.copy(PUBLISHED, tmp_path / "derived.json"))
    before = rows(Results.read(path))
    # sin is the best single function, as in the published results: the columns of differences are the same
    after = write(path, singles("sin") | trials(71.0, "fair"))
    tables = ("discretisation gap", "derived networks, k = 1", "what was derived, seed by seed")
    added = {(f"Fashion-MNIST: {table}", "fair") for table in tables}
    assert rows(after).keys() - before.keys() == added
    replaced = ("Fashion-MNIST: one function at all sites",)
    assert {key: shown for key, shown in rows(after).items() if key not in added and key[0] not in replaced} == {
        key: shown for key, shown in before.items() if key[0] not in replaced
    }
    assert "machine" not in after.cases["Fashion-MNIST: fair"]
    assert "2026-11-23" in after.cases["Fashion-MNIST: gdas"]["machine"]
    again = write(path, singles("sin") | trials(72.0, "joint"))
    assert {what for _, what in rows(again)} == {what for _, what in rows(after)} | {"joint"}
    assert capsys.readouterr().err == ""


def test_rows_that_are_compared_with_another_best_single_function_are_left_out_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(shutil.copy(PUBLISHED, tmp_path / "derived.json"))
    after = write(path, singles("tanh") | trials(71.0, "fair"))
    of_cases = {what for title, what in rows(after) if title == "Fashion-MNIST: discretisation gap"}
    assert of_cases == {"fair"}
    assert {what for title, what in rows(after) if title == "CIFAR-10: discretisation gap"} == {
        "gdas",
        "gdas, validated",
    }
    assert capsys.readouterr().err == (
        "earlier rows of 'Fashion-MNIST: derived networks, k = 1' are left out: "
        "they are 'test; less sin', and this run has 'test; less tanh'\n"
    )


def test_rows_of_other_settings_are_left_out_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(shutil.copy(PUBLISHED, tmp_path / "derived.json"))
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "settings": {**document["settings"], "seeds": 3}}))
    assert keep(path, list(singles())).records == {}
    said = capsys.readouterr().err
    assert said == (
        f"{path}: the rows of 5 other cases are left out of the new results: seeds was 3 and is 5 in this run\n"
    )


def test_the_training_of_a_single_function_stays_cached_until_a_setting_that_it_uses_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    single, trial = (cases.Job("cifar10", name, 1) for name in ("relu", cases.TARGET_CASE))
    before = single.key(), trial.key()
    task = cases.ALL_TASKS["cifar10"]
    monkeypatch.setitem(cases.ALL_TASKS, "cifar10", replace(task, functions=("relu", "elu")))
    assert single.key() == before[0]
    assert trial.key() != before[1]
    monkeypatch.setitem(cases.ALL_TASKS, "cifar10", replace(task, epochs=task.epochs + 1))
    assert single.key() != before[0]
    assert len({cases.Job("cifar10", name, seed).path(ROOT) for name in cases.CASES for seed in SEEDS}) == 5 * len(
        cases.CASES
    )


def test_a_tar_is_unpacked_with_its_first_training_images_and_all_test_images(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "cifar10-jpeg.tar", "w") as tar:
        for part in ("train", "test"):
            for kind in range(cifar10.CLASSES):
                for number in range(3):
                    member = tarfile.TarInfo(f"{part}/class{kind}/{number:04}.jpg")
                    member.size = 1
                    tar.addfile(member, io.BytesIO(b"x"))
    runs = tmp_path / "runs"
    for _ in range(2):
        named = cifar10.cifar10_dataset(tmp_path, runs, 2 * cifar10.CLASSES)
        dataset = cases.spec_of(cases.TASKS["cifar10"], 0, {}, named).task.dataset
        assert dataset.name == "image_folder"
        unpacked = [path.relative_to(dataset.options["path"]) for path in runs.rglob("*.jpg")]
        assert sorted({path.name for path in unpacked if path.parts[0] == "train"}) == ["0000.jpg", "0001.jpg"]
        assert [sum(path.parts[0] == part for path in unpacked) for part in ("train", "test")] == [20, 30]
    assert cifar10.cifar10_dataset(tmp_path / "nothing", runs, 20) == "cifar10"


@pytest.mark.slow
def test_an_interrupted_run_continues_and_a_derived_network_of_one_function_equals_its_single_network(
    tmp_path: Path,
) -> None:
    runs, written = tmp_path / "runs", tmp_path / "results.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "derived.py"), "--quick", "--runs", str(runs)]

    def run(*more: str) -> None:
        done = subprocess.run([*command, *more], cwd=ROOT, env=dict(os.environ), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    run("--json", str(written))
    files = {path: path.stat().st_mtime_ns for path in runs.rglob("*.json")}
    assert len(files) == 2 * (2 + len(cases.CASES))
    groups = json.loads(written.read_text())["groups"]
    assert len(groups) == 5
    assert len(groups[0]["rows"]) == 2

    of_singles = {path.stem: json.loads(path.read_text()) for path in files if path.parent.name == "singles"}
    uniform = 0
    for path in files:
        if path.parent.name == "trials":
            trial = json.loads(path.read_text())
            assert trial["gap"] == pytest.approx(trial["mixture"] - trial["val"])
            if len(chosen := set(trial["functions"])) == 1:
                single = of_singles[f"digits-{chosen.pop()}-{path.stem[-1]}"]
                assert (trial["val"], trial["test"]) == (single["val"], single["test"])
                uniform += 1
    assert uniform

    next(path for path in files if path.parent.name == "trials").unlink()
    run()
    again = {path: path.stat().st_mtime_ns for path in runs.rglob("*.json")}
    assert again.keys() == files.keys()
    assert sum(again[path] == files[path] for path in files) == len(files) - 1
