"""The effect of the kernels on accuracy: the same searches with table, reference and fused, on Fashion-MNIST.

Usage: python benchmarks/kernel_accuracy.py --data DIR [--seeds N] [--json FILE]. DIR is what `nasact search --data-dir`
takes. Every run is cached under runs/accuracy: an interrupted benchmark continues with the next run.

A seed gives the same images, weights and order of images to every kernel. The searches use strategy `joint`, so the
held-out images take no part in training. The derived network is retrained and tested. `reference` and `fused` compute
the same formulas with sums in another order: the difference between these two is the effect of rounding alone.
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
from command_line import publish
from machine import inspect_machine
from result_tables import Group, Results, Row
from timing import Spread

from nasact import activations
from nasact.compare.seed_run import TrainingJob, splits, train_seed_run
from nasact.files import write_json
from nasact.report.statistics import ci95, mean, std
from nasact.study import Study, TrialSpec
from nasact.tasks import load_data
from nasact.trial import run_to_end, trial_key

KERNELS = ("table", "reference", "fused")
OTHERS = ("table", "fused")
INTERVAL = "mean (95 % interval; sd)"
RUNS = Path("runs/accuracy")


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


def run_kernel(kernel: str, seed: int, quick: bool, data_dir: Path, runs: Path) -> dict[str, Any]:
    """Return the accuracies and functions of one run; read them from their file in `runs` if it was done before."""
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
    directory, key = runs / f"{kernel}-{seed}", trial_key(trial, data)
    path = directory / "outcome.json"
    if path.exists() and (cached := json.loads(path.read_text()))["key"] == key:
        return cached
    result = run_to_end(trial, data, directory=directory)
    if result.status != "complete":
        raise SystemExit(f"{directory}: {result.status}: {result.reason}")
    job = TrainingJob(result.genotype, seed, "test", "derived")
    retrained, _ = train_seed_run(trial, data, job, *splits(data, "test"))
    outcome = {
        "key": key,
        "mixture": 100 * result.metrics["search_val_accuracy"],
        "derived": 100 * retrained.accuracy,
        "functions": [gene.functions[0] for gene in result.genotype.sites.values()],
        "seconds": result.metrics["search_seconds"],
    }
    write_json(path, outcome)
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="folder of Fashion-MNIST (data)")
    parser.add_argument("--seeds", type=int, default=12, help="runs per kernel (default: 12)")
    parser.add_argument("--processes", type=int, default=2, help="parallel runs, one thread each (default: 2)")
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help=f"cache of runs (default: {RUNS})")
    parser.add_argument("--quick", action="store_true", help="smoke test: digits, one epoch")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to FILE")
    args = parser.parse_args()
    if args.seeds < 2:
        raise SystemExit(f"--seeds: a spread needs at least 2 seeds, but got {args.seeds}")
    torch.set_num_threads(1)
    machine = inspect_machine()
    runs = [(kernel, seed) for seed in range(args.seeds) for kernel in KERNELS]
    with ProcessPoolExecutor(args.processes, multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(run_kernel, *run, args.quick, args.data, args.runs) for run in runs]
        outcomes = {}
        for run, future in zip(runs, futures, strict=True):
            outcomes[run] = future.result()
            sys.stderr.write(f"{len(outcomes)}/{len(runs)} {run[0]} seed {run[1]}: {summary(outcomes[run])}\n")
    publish(Results("kernel_accuracy", machine, groups(outcomes, args.seeds), args.quick), args.json)


def summary(run: dict[str, Any]) -> str:
    return f"mixture {run['mixture']:.2f} %, derived {run['derived']:.2f} %, search {run['seconds']:.0f} s"


def groups(outcomes: dict[tuple[str, int], dict[str, Any]], seeds: int) -> tuple[Group, ...]:
    """Accuracies and their differences, then the functions that were chosen and the seconds of a search."""

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
