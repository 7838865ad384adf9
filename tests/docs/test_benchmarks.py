"""The benchmarks run, and the docs hold their published results, target by target. Nothing here is timed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
SCRIPTS = ("mixture", "steps", "first_call", "table_errors", "surgery", "table_backends")
"""What `make bench` runs, and table_backends.py."""

# row: (at most, stretch)
TARGETS = {
    "table K=13 / one tanh": (1.3, 1.0),
    "table K=13 / naive stack": (1 / 30, 1 / 45),
    "table K=13 / compiled loop": (1 / 3.5, 1 / 5),
    "table K=4 / compiled loop": (1 / 1.5, 1 / 2),
    "table K=13 / table K=4": (1.1, 1.02),
    "channel level / layer level": (1.5, 1.15),
    "neuron level / compiled loop": (1.0, 0.7),
    "kept for backward, float32": (1.0, 1.0),
    "kept for backward, bfloat16": (1.0, 0.5),
    "training step, basic / relu": (1.15, 1.05),
    "training step, all / relu": (1.15, 1.05),
    "second-order DARTS step, basic / relu": (4.5, 3.5),
    "second-order DARTS step, all / relu": (4.5, 3.5),
    "the same, simultaneous updates, basic / relu": (4.5, 3.5),
    "the same, simultaneous updates, all / relu": (4.5, 3.5),
    "first call, warm cache": (0.5, 0.1),
    "first call, fresh machine": (15.0, 5.0),
    "functional calls in a forward": (5.0, 1.0),
    "the same, with the model's own function": (5.0, 1.0),
    "a call in a loop over modules": (5.0, 1.0),
    "a method that is called at three places": (5.0, 1.0),
    "in place, written back": (5.0, 1.0),
}

PAGES = {"derived": "ranking", "surgery": "surgery"}
"""The page of a script's results; of all others: performance."""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_every_benchmark_runs_and_its_smoke_test_is_kept_out_of_the_docs(tmp_path: Path) -> None:
    # all in one process: their imports take longer than their measurements
    code = (
        "import runpy, sys; benchmarks, folder, *scripts = sys.argv[1:]; sys.path.insert(0, benchmarks)\n"
        "for script in scripts:\n"
        "    path, results = f'{benchmarks}/{script}.py', f'{folder}/{script}.json'\n"
        "    sys.argv = [path, '--quick', '--threads', '1', '--json', results]\n"
        "    runpy.run_path(path, run_name='__main__')\n"
        "import update_docs; from pathlib import Path; update_docs.read_results(Path(folder) / f'{scripts[0]}.json')\n"
    )
    done = python("-c", code, str(BENCHMARKS), str(tmp_path), *SCRIPTS)
    assert done.returncode == 1
    assert done.stderr.endswith("comes from a run with --quick: its numbers mean nothing\n"), done.stderr
    assert len(SCRIPTS) == 6
    for script in SCRIPTS:
        document = json.loads((tmp_path / f"{script}.json").read_text())
        assert document["machine"]["cpu"]
        assert document["groups"]
        assert all(group["rows"] for group in document["groups"])


def test_the_results_hold_exactly_these_targets() -> None:
    found = {}
    for script in SCRIPTS:
        for group in json.loads((BENCHMARKS / "results" / f"{script}.json").read_text())["groups"]:
            found |= {row["what"]: (row["at_most"], row["stretch"]) for row in group["rows"] if row["at_most"]}
    assert len(TARGETS) == 22
    assert found == TARGETS


def test_the_pages_hold_the_published_results() -> None:
    done = python(str(BENCHMARKS / "update_docs.py"), "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("performance", "ranking", "surgery")}
    results = {path.stem: json.loads(path.read_text()) for path in (BENCHMARKS / "results").glob("*.json")}
    assert results.keys() == {*SCRIPTS, "kernel_accuracy", "derived"}
    groups = [(name, group) for name, document in results.items() for group in document["groups"]]
    assert len(groups) >= 15
    assert all(f"| what | {group['measured']} |" in pages[PAGES.get(name, "performance")] for name, group in groups)
    assert all(f"| {what} |" in pages["performance"] + pages["surgery"] for what in TARGETS)


@pytest.mark.slow
def test_an_interrupted_benchmark_of_accuracy_continues_with_the_missing_run(tmp_path: Path) -> None:
    command = [str(BENCHMARKS / "kernel_accuracy.py"), "--quick", "--seeds", "2", "--runs", str(tmp_path / "runs")]
    first = python(*command, "--json", str(tmp_path / "first.json"))
    assert first.returncode == 0, first.stderr
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/outcome.json")}
    assert len(times) == 6
    next(iter(times)).unlink()
    again = python(*command, "--json", str(tmp_path / "again.json"))
    assert again.returncode == 0, again.stderr
    later = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/outcome.json")}
    assert len(later) == 6
    assert sum(later[path] == times[path] for path in later) == 5
