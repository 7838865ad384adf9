"""Build the genotype table: train every genotype of the small network with several seeds, and test the ranking.

Usage: make genotype-table DATA=DIR. DIR is what `nasact search --data-dir` takes. Every finished seed is cached under
runs/genotypes: an interrupted run continues with the next seed.

A seed fixes the weights (those of nasact's model) and the order of the images (that of nasact's `fit`). All genotypes
of a seed share both, so they differ in their functions only. They are measured after the budget of epochs and, after
further training, at twice the budget. The script writes table.csv, and table.json with settings, machine and
correlations.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from genotypes import table, task
from genotypes.batched_networks import MovingAverages, Networks, adam, train_epoch
from machine import inspect_machine
from scipy.stats import spearmanr

from nasact.files import write_json
from nasact.report.statistics import mean
from nasact.tasks import Data, build_model
from nasact.training.batches import batches
from nasact.training.process import configure_process
from nasact.training.seeds import derive_seed

HERE = Path(__file__).resolve().parent
RUNS = Path("runs/genotypes")
PHASE = "genotypes"
Columns = dict[str, list[float]]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of the table, except the seeds. `epochs` is the budget.

    Adam's `lr` is constant, so networks are measured with the moving average (`average` is its decay) of their weights.
    """

    dataset: str = f"{task.DATASET}, {task.POOL} x {task.POOL} pixels averaged"
    train: int = task.TRAIN
    validation: int = task.VALIDATION
    split_seed: int = task.SPLIT_SEED
    hidden: tuple[int, ...] = tuple(task.MODEL_OPTIONS["hidden"])
    functions: tuple[str, ...] = task.FUNCTIONS
    epochs: int = 12
    batch_size: int = 64
    lr: float = 5e-3
    average: float = 0.99


def model_seed(seed: int) -> int:
    """The seed of the weights that all genotypes of `seed` start with."""
    return derive_seed(seed, "model")


def build_networks(settings: Settings, data: Data, seed: int) -> Networks:
    """Return all genotypes, with the weights that nasact's mlp has for this seed."""
    options = {"hidden": list(settings.hidden)}
    model = build_model(task.MODEL, options, input_shape=data.input_shape, classes=data.classes, seed=model_seed(seed))
    return Networks(model, settings.functions)


def measure(settings: Settings, data: Data, seed: int, report: Callable[[int, float], None] | None = None) -> Columns:
    """Return the accuracies of all genotypes by the names of `table.ACCURACIES`.

    `report(epoch, seconds)` is called after every epoch.
    """
    networks = build_networks(settings, data, seed)
    optimiser, averages = adam(networks, settings.lr), MovingAverages(networks, settings.average)
    test = data.test.open()
    columns: Columns = {}
    started = time.perf_counter()
    for epoch in range(2 * settings.epochs):
        drawn = batches(data.train, settings.batch_size, seed=seed, phase=PHASE, epoch=epoch)
        train_epoch(networks, optimiser, ((batch.x, batch.y) for batch in drawn), averages)
        if epoch + 1 in (settings.epochs, 2 * settings.epochs):
            suffix = "" if epoch + 1 == settings.epochs else "_twice"
            with averages.in_place() as averaged:
                columns[f"val{suffix}"] = averaged.accuracies(data.val.x, data.val.y).tolist()
                columns[f"test{suffix}"] = averaged.accuracies(test.x, test.y).tolist()
        if report is not None:
            report(epoch + 1, time.perf_counter() - started)
    return columns


def measure_seed(settings: Settings, data: Data, seed: int, runs: Path, **rest: Any) -> dict[str, Any]:
    """Return the measurement of a seed; read it from its file in `runs` if that has the same settings."""
    path = runs / f"seed-{seed}.json"
    as_json = json.loads(json.dumps(asdict(settings)))
    if path.exists() and (cached := json.loads(path.read_text()))["settings"] == as_json:
        return cached
    started = time.perf_counter()
    accuracies = measure(settings, data, seed, **rest)
    outcome = {"settings": as_json, "seconds": time.perf_counter() - started, "accuracies": accuracies}
    runs.mkdir(parents=True, exist_ok=True)
    write_json(path, outcome)
    return outcome


def rows(settings: Settings, genotypes: Sequence[table.Names], measured: dict[int, Columns]) -> list[table.Row]:
    """The rows of the table: seed by seed, the genotypes in their order."""
    return [
        table.Row(genotype, seed, {name: columns[name][index] for name in table.ACCURACIES})
        for seed, columns in measured.items()
        for index, genotype in enumerate(genotypes)
    ]


# ---- how reliable the ranking is --------------------------------------------------------------------------------


def correlation(one: dict[table.Names, float], other: dict[table.Names, float]) -> float:
    """Spearman's rank correlation of two columns, over the genotypes of the first."""
    return float(spearmanr([*one.values()], [other[genotype] for genotype in one]).statistic)


def correlations(whole: table.Table) -> dict[str, float]:
    """Correlations between seeds, halves of the seeds, budgets and splits: means over all pairs, or over seeds.

    Genotypes of clearly different accuracy (a sigmoid at any site) carry most of a correlation. So there is also one
    over the better half of the genotypes only, which is chosen by validation accuracy.
    """
    each = {name: {seed: whole.column(name, [seed]) for seed in whole.seeds} for name in table.ACCURACIES}
    means = {name: whole.column(name) for name in table.ACCURACIES}
    better = sorted(means["val"], key=means["val"].__getitem__)[len(means["val"]) // 2 :]
    result = {}
    for name in ("test", "test_twice"):
        halves = [
            (whole.column(name, half), whole.column(name, set(whole.seeds) - set(half)))
            for half in combinations(whole.seeds, len(whole.seeds) // 2)
        ]
        of_better = [({genotype: half[genotype] for genotype in better}, rest) for half, rest in halves]
        pairs = {
            "between two seeds": [*combinations(each[name].values(), 2)],
            "between halves of the seeds": halves,
            "between halves of the seeds, better half of the genotypes": of_better,
        }
        result |= {f"{name}: {what}": mean([correlation(*pair) for pair in chosen]) for what, chosen in pairs.items()}
    result["test: budget and twice the budget, one seed"] = mean(
        [correlation(each["test"][seed], each["test_twice"][seed]) for seed in whole.seeds]
    )
    result["test: budget and twice the budget, means"] = correlation(means["test"], means["test_twice"])
    result["validation and test, one seed"] = mean(
        [correlation(each["val"][seed], each["test"][seed]) for seed in whole.seeds]
    )
    result["validation and test, means"] = correlation(means["val"], means["test"])
    return result


def standing(ranked: table.Table, genotype: table.Names) -> dict[str, Any]:
    return {
        "functions": list(genotype),
        "accuracy": round(ranked.accuracy(genotype), 5),
        "rank": ranked.rank(genotype),
        "percentile": round(ranked.percentile(genotype), 2),
    }


def summarise(path: Path) -> dict[str, Any]:
    """The part of table.json that follows from table.csv.

    It holds the correlations, the ten best genotypes, the accuracies at several percentiles, and the ranks of the
    genotypes with one function at all sites.
    """
    summary: dict[str, Any] = {"correlations": {}}
    budget, twice = (table.Table.load(path, by=by) for by in ("test", "test_twice"))
    if len(budget.seeds) > 1:
        summary["correlations"] = {what: round(value, 4) for what, value in correlations(budget).items()}
    sites = len(budget.genotypes[0])
    for whole in (budget, twice):
        best_first = sorted(whole.genotypes, key=whole.rank)
        summary[whole.by] = {
            "best": [standing(whole, genotype) for genotype in best_first[:10]],
            "accuracy at percentile": {
                str(part): round(whole.accuracy(best_first[round(part / 100 * (len(best_first) - 1))]), 5)
                for part in (0, 5, 10, 25, 50, 75, 100)
            },
            "uniform": [standing(whole, (name,) * sites) for name in whole.functions],
        }
    best = min(budget.genotypes, key=budget.rank)
    summary["twice the budget: percentile of the best at the budget"] = twice.percentile(best)
    return summary


# ---- the command line -------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="folder of MNIST (data)")
    parser.add_argument("--seeds", type=int, default=6, help="train seeds 0 to N - 1 (default: 6)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help=f"cache of seeds (default: {RUNS})")
    parser.add_argument("--to", type=Path, default=HERE, metavar="DIR", help="folder of table.csv and table.json")
    args = parser.parse_args()
    if args.seeds < 1:
        raise SystemExit(f"--seeds: expected at least 1, but got {args.seeds}")
    configure_process(args.threads)
    build(Settings(), task.images(args.data), range(args.seeds), args.runs, args.to)


def build(settings: Settings, data: Data, seeds: Sequence[int], runs: Path, to: Path) -> None:
    """Measure the seeds that are not in `runs` yet, then write table.csv and table.json into `to`."""
    machine = inspect_machine()
    genotypes = build_networks(settings, data, seeds[0]).genotypes()
    measured, seconds = {}, {}
    for seed in seeds:

        def report(epoch: int, spent: float, seed: int = seed) -> None:
            remaining = spent / epoch * (2 * settings.epochs * (seeds[-1] - seed + 1) - epoch)
            sys.stderr.write(
                f"seed {seed}: epoch {epoch} of {2 * settings.epochs}, {spent:.0f} s; "
                f"about {remaining / 60:.0f} min left\n"
            )
            sys.stderr.flush()

        outcome = measure_seed(settings, data, seed, runs, report=report)
        measured[seed], seconds[seed] = outcome["accuracies"], round(outcome["seconds"], 1)
    to.mkdir(parents=True, exist_ok=True)
    table.write(rows(settings, genotypes, measured), to / "table.csv")
    document = {
        "settings": asdict(settings),
        "networks": f"{len(genotypes)} genotypes x {len(seconds)} seeds",
        "machine": machine,
        "seconds": seconds,
        **summarise(to / "table.csv"),
    }
    (to / "table.json").write_text(json.dumps(document, indent=1) + "\n")
    sys.stdout.write(json.dumps({key: document[key] for key in ("networks", "correlations")}, indent=1) + "\n")


if __name__ == "__main__":
    main()
