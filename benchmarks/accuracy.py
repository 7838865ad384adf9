"""Whether the table costs accuracy: the same searches with the kernels table, reference and fused, on Fashion-MNIST.

Run it where nasact is installed: python benchmarks/accuracy.py --data DIR [--seeds N] [--json FILE]; DIR is what
`nasact search --data-dir` takes. Every run is kept under runs/accuracy: stopped, it goes on where it was.

The same seed gives the same images, weights and order to every kernel. Searches are joint, so the images held out
are seen by nobody; the derived network is trained again, and tested. `reference` and `fused` compute the same
numbers but for the order of their sums: what lies between those two is what any change of rounding makes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from report import Group, Results, Row, machine, publish
from timing import Spread

from nasact import activations
from nasact.compare.seed_run import Job, splits, train_seed_run
from nasact.files import write_json
from nasact.report.statistics import ci95, mean, std
from nasact.study import Study, TrialSpec
from nasact.tasks import load_data
from nasact.trial import run_trial, trial_key

KERNELS = ("table", "reference", "fused")
OTHERS = ("table", "fused")
INTERVAL = "mean (95 % interval; sd)"
ROOM = Path("runs/accuracy")


def spec(kernel: str, seed: int, quick: bool) -> TrialSpec:
    return Study.from_tree(
        {
            "name": "accuracy",
            "seed": seed,
            "task": {
                "dataset": "digits" if quick else "fashion_mnist",
                "model": {"name": "mlp"} if quick else {"name": "small_cnn", "width": 0.5},
                "validation": 0.5,
                "train_limit": 400 if quick else 4000,
            },
            "search_space": [name for name in activations.load_space("all") if name != "softmax"],
            "search": {
                "strategy": {"name": "joint", "lr": 1e-2},
                "kernel": kernel,
                "epochs": 1 if quick else 8,
                "optimiser": {"name": "adam", "lr": 2e-3},
            },
            "derive": {"top_k": 1},
            "retrain": {"epochs": 1 if quick else 8},
        }
    ).spec


def outcome(kernel: str, seed: int, quick: bool, data_dir: Path, room: Path) -> dict[str, Any]:
    """What a run found; from its file where it is done."""
    torch.set_num_threads(1)
    trial = spec(kernel, seed, quick)
    task = trial.task
    data = load_data(
        task.dataset.name,
        task.dataset.options,
        validation=task.validation,
        seed=seed,
        data_dir=data_dir,
        train_limit=task.train_limit,
    )
    here, key = room / f"{kernel}-{seed}", trial_key(trial, data)
    path = here / "outcome.json"
    if path.exists() and (found := json.loads(path.read_text()))["key"] == key:
        return found
    running = run_trial(trial, data, directory=here)
    while True:
        try:
            next(running)
        except StopIteration as end:
            result = end.value
            break
    if result.status != "complete":
        raise SystemExit(f"{here}: {result.status}: {result.reason}")
    cell, _ = train_seed_run(trial, data, Job(result.genotype, seed, "test", "derived"), *splits(data, "test"))
    found = {
        "key": key,
        "mixture": 100 * result.metrics["search_val_accuracy"],
        "derived": 100 * cell.accuracy,
        "functions": [gene.functions[0] for gene in result.genotype.sites.values()],
        "seconds": result.metrics["search_seconds"],
    }
    write_json(path, found)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="of Fashion-MNIST (data)")
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, one thread each (2)")
    parser.add_argument("--room", type=Path, default=ROOM, metavar="DIR", help=f"where runs are kept ({ROOM})")
    parser.add_argument("--quick", action="store_true", help="digits, one epoch: a smoke test")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to FILE")
    given = parser.parse_args()
    if given.seeds < 2:
        raise SystemExit(f"--seeds: at least 2 are needed to see a spread, but got {given.seeds}")
    torch.set_num_threads(1)
    found = machine()
    runs = [(kernel, seed) for seed in range(given.seeds) for kernel in KERNELS]
    with ProcessPoolExecutor(given.processes, multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(outcome, *run, given.quick, given.data, given.room) for run in runs]
        outcomes = {}
        for run, future in zip(runs, waiting, strict=True):
            outcomes[run] = future.result()
            sys.stderr.write(f"{len(outcomes)}/{len(runs)} {run[0]} seed {run[1]}: {_told(outcomes[run])}\n")
    publish(Results("accuracy", found, groups(outcomes, given.seeds), given.quick), given.json)


def _told(run: dict[str, Any]) -> str:
    return f"mixture {run['mixture']:.2f} %, derived {run['derived']:.2f} %, search {run['seconds']:.0f} s"


def groups(outcomes: dict[tuple[str, int], dict[str, Any]], seeds: int) -> tuple[Group, ...]:
    def column(kernel: str, what: str) -> list[Any]:
        return [outcomes[kernel, seed][what] for seed in range(seeds)]

    accuracies, differences = [], []
    for what, name in {"mixture": "mixture, held-out", "derived": "derived, test"}.items():
        accuracies += [interval(f"{name}: {kernel}", column(kernel, what), "%") for kernel in KERNELS]
        for kernel in OTHERS:
            pairs = zip(column(kernel, what), column("reference", what), strict=True)
            differences.append(interval(f"{name}: {kernel} - reference", [a - b for a, b in pairs], "points"))
    choices = [share_row(kernel, column(kernel, "functions"), column("reference", "functions")) for kernel in OTHERS]
    times = [Row.of(f"a search: {kernel}", Spread.of(column(kernel, "seconds")), unit="s") for kernel in KERNELS]
    return (
        Group("Accuracy", tuple(accuracies), INTERVAL),
        Group("Differences, paired by seed", tuple(differences), INTERVAL),
        Group("What was chosen, and how long a search took on one thread", tuple(choices + times)),
    )


def interval(what: str, values: list[float], unit: str) -> Row:
    low, high = ci95(values) or (values[0], values[0])
    sign = "+" if unit == "points" else ""
    shown = f"{mean(values):{sign}.2f} {unit} ({low:{sign}.2f} to {high:{sign}.2f}; {std(values):.2f})"
    return Row(what=what, value=mean(values), low=low, high=high, unit=unit, shown=shown)


def share_row(kernel: str, chosen: list[list[str]], reference: list[list[str]]) -> Row:
    same = [a == b for one, other in zip(chosen, reference, strict=True) for a, b in zip(one, other, strict=True)]
    value = 100 * sum(same) / len(same)
    shown = f"{sum(same)} of {len(same)}"
    return Row(what=f"sites where {kernel} and reference agree", value=value, low=value, high=value, shown=shown)


if __name__ == "__main__":
    main()
