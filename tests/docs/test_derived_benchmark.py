"""The benchmark of derived networks chooses by validation, keeps what it trained, measures what a trial ended with."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import derived
import images
import pytest

from nasact.study import Study

ROOT = Path(__file__).resolve().parents[2]

SEEDS = range(5)


def found(test: float) -> dict[derived.Job, derived.Outcome]:
    """Made-up outcomes on Fashion-MNIST: tanh is best on validation, sin on test; the judged case has `test`."""
    told = {}
    for seed in SEEDS:
        for name in derived.FUNCTIONS:
            single = {"val": 80 + (name == "tanh"), "test": 70 + (name == "tanh") + 5 * (name == "sin"), "seconds": 10}
            told[derived.Job("fashion_mnist", name, seed)] = single
        gap = 0.5 + 0.1 * seed
        trial = {"mixture": 82 + gap, "val": 82, "gap": gap, "test": test, "functions": ["relu"] * 4, "seconds": 40}
        told[derived.Job("fashion_mnist", derived.JUDGED, seed)] = trial
    return told


def test_every_case_is_a_study_that_derives_one_function_a_site() -> None:
    assert len(derived.CASES) >= 4
    assert derived.JUDGED in derived.CASES
    assert set(derived.CASES).isdisjoint(derived.FUNCTIONS)
    for task in derived.TASKS.values():
        for name, case in derived.CASES.items():
            spec = Study.from_tree(derived.tree(task, 3, case)).spec
            assert spec.derive.top_k == 1, name
            assert (spec.search.epochs, spec.retrain.epochs) == (task.epochs, task.epochs), name


@pytest.mark.parametrize(("test", "verdict"), [(71.0, "met"), (70.9, "missed")])
def test_the_best_single_function_is_chosen_by_validation_and_not_by_test(test: float, verdict: str) -> None:
    targets, singles, *_ = derived.groups(found(test))
    assert [row.what for row in singles.rows if "the best single" in row.shown] == ["tanh"]
    assert [row.what for row in singles.rows if "best on test" in row.shown] == ["sin"]
    gap, behind = targets.rows
    assert (gap.value, gap.at_most, gap.verdict) == (pytest.approx(0.7), 1.0, "met")
    assert (behind.value, behind.at_most, behind.verdict) == (pytest.approx(71 - test), 0.0, verdict)


def test_a_case_is_compared_over_the_seeds_that_it_has() -> None:
    outcomes = found(71.0)
    del outcomes[derived.Job("fashion_mnist", derived.JUDGED, 4)]
    del outcomes[derived.Job("fashion_mnist", "relu", 0)]
    gap, _ = derived.groups(outcomes)[0].rows
    assert gap.value == pytest.approx(0.7)  # seeds 1, 2 and 3
    assert "3 seeds" in gap.shown


def test_a_single_functions_training_is_kept_until_what_it_reads_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    single, trial = (derived.Job("cifar10", name, 1) for name in ("relu", derived.JUDGED))
    before = single.key(), trial.key()
    task = derived.ALL_TASKS["cifar10"]
    monkeypatch.setitem(derived.ALL_TASKS, "cifar10", replace(task, functions=("relu", "elu")))
    assert single.key() == before[0]
    assert trial.key() != before[1]
    monkeypatch.setitem(derived.ALL_TASKS, "cifar10", replace(task, epochs=task.epochs + 1))
    assert single.key() != before[0]
    assert len({derived.Job("cifar10", name, seed).path(ROOT) for name in derived.CASES for seed in SEEDS}) == 5 * len(
        derived.CASES
    )


def test_the_first_training_images_of_a_tar_are_unpacked_and_every_test_image(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "cifar10-jpeg.tar", "w") as tar:
        for part in ("train", "test"):
            for kind in range(images.CLASSES):
                for number in range(3):
                    member = tarfile.TarInfo(f"{part}/class{kind}/{number:04}.jpg")
                    member.size = 1
                    tar.addfile(member, io.BytesIO(b"x"))
    room = tmp_path / "room"
    for _ in range(2):
        told = images.cifar10(tmp_path, room, 2 * images.CLASSES)
        dataset = derived.spec_of(derived.TASKS["cifar10"], 0, {}, told).task.dataset
        assert dataset.name == "image_folder"
        unpacked = [path.relative_to(dataset.options["path"]) for path in room.rglob("*.jpg")]
        assert sorted({path.name for path in unpacked if path.parts[0] == "train"}) == ["0000.jpg", "0001.jpg"]
        assert [sum(path.parts[0] == part for path in unpacked) for part in ("train", "test")] == [20, 30]
    assert images.cifar10(tmp_path / "nothing", room, 20) == "cifar10"


@pytest.mark.slow
def test_it_goes_on_where_it_was_and_a_derived_network_of_one_function_is_that_functions_own(tmp_path: Path) -> None:
    room, told = tmp_path / "runs", tmp_path / "told.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "derived.py"), "--quick", "--room", str(room)]

    def run(*more: str) -> None:
        done = subprocess.run([*command, *more], cwd=ROOT, env=dict(os.environ), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    run("--json", str(told))
    files = {path: path.stat().st_mtime_ns for path in room.rglob("*.json")}
    assert len(files) == 2 * (2 + len(derived.CASES))
    groups = json.loads(told.read_text())["groups"]
    assert len(groups) == 5
    assert len(groups[0]["rows"]) == 2

    singles = {path.stem: json.loads(path.read_text()) for path in files if path.parent.name == "singles"}
    uniform = 0
    for path in files:
        if path.parent.name == "trials":
            trial = json.loads(path.read_text())
            assert trial["gap"] == pytest.approx(trial["mixture"] - trial["val"])
            if len(chosen := set(trial["functions"])) == 1:
                single = singles[f"digits-{chosen.pop()}-{path.stem[-1]}"]
                assert (trial["val"], trial["test"]) == (single["val"], single["test"])
                uniform += 1
    assert uniform

    next(path for path in files if path.parent.name == "trials").unlink()
    run()
    again = {path: path.stat().st_mtime_ns for path in room.rglob("*.json")}
    assert again.keys() == files.keys()
    assert sum(again[path] == files[path] for path in files) == len(files) - 1
