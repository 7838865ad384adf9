"""Make the genotype table: train every genotype of the small network, seed by seed, and say how far the ranking holds.

Run it by `make genotype-table DATA=DIR`; DIR is what `nasact search --data-dir` takes. Every finished seed is kept
under runs/genotypes: stopped, it goes on with the next.

A seed fixes the weights (those of nasact's model) and the order of the images (that of nasact's `fit`); all genotypes
of a seed share both, so that they differ by their functions alone. They are measured at the budget and, trained on, at
twice the budget. It writes table.csv and, beside it, table.json: settings, machine, correlations.
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
from genotypes.batched import Averages, Networks, adam, train_epoch
from report import machine
from scipy.stats import spearmanr

from nasact.files import write_json
from nasact.report.statistics import mean
from nasact.tasks import Data, build_model
from nasact.training.batches import batches
from nasact.training.process import configure_process
from nasact.training.seeds import derive_seed

HERE = Path(__file__).resolve().parent
ROOM = Path("runs/genotypes")
PHASE = "genotypes"
Columns = dict[str, list[float]]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a number of the table depends on, but for the seed. `epochs` is the budget.

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


def networks(settings: Settings, data: Data, seed: int) -> Networks:
    """All genotypes with the weights that nasact's mlp has by this seed."""
    options = {"hidden": list(settings.hidden)}
    model = build_model(task.MODEL, options, input_shape=data.input_shape, classes=data.classes, seed=model_seed(seed))
    return Networks(model, settings.functions)


def measure(settings: Settings, data: Data, seed: int, tell: Callable[[int, float], None] | None = None) -> Columns:
    """Accuracies of all genotypes by the names of `table.ACCURACIES`; `tell(epoch, seconds)` hears of every epoch."""
    stack = networks(settings, data, seed)
    optimiser, averages = adam(stack, settings.lr), Averages(stack, settings.average)
    test = data.test.open()
    found: Columns = {}
    started = time.perf_counter()
    for epoch in range(2 * settings.epochs):
        drawn = batches(data.train, settings.batch_size, seed=seed, phase=PHASE, epoch=epoch)
        train_epoch(stack, optimiser, ((batch.x, batch.y) for batch in drawn), averages)
        if epoch + 1 in (settings.epochs, 2 * settings.epochs):
            after = "" if epoch + 1 == settings.epochs else "_twice"
            with averages.in_place() as averaged:
                found[f"val{after}"] = averaged.accuracies(data.val.x, data.val.y).tolist()
                found[f"test{after}"] = averaged.accuracies(test.x, test.y).tolist()
        if tell is not None:
            tell(epoch + 1, time.perf_counter() - started)
    return found


def seed_file(settings: Settings, data: Data, seed: int, room: Path, **rest: Any) -> dict[str, Any]:
    """What a seed measured; from its file where it was done with the same settings."""
    path = room / f"seed-{seed}.json"
    wanted = json.loads(json.dumps(asdict(settings)))
    if path.exists() and (found := json.loads(path.read_text()))["settings"] == wanted:
        return found
    started = time.perf_counter()
    accuracies = measure(settings, data, seed, **rest)
    found = {"settings": wanted, "seconds": time.perf_counter() - started, "accuracies": accuracies}
    room.mkdir(parents=True, exist_ok=True)
    write_json(path, found)
    return found


def rows(settings: Settings, genotypes: Sequence[table.Names], measured: dict[int, Columns]) -> list[table.Row]:
    """Seed by seed, the genotypes in their order."""
    return [
        table.Row(genotype, seed, {name: columns[name][index] for name in table.ACCURACIES})
        for seed, columns in measured.items()
        for index, genotype in enumerate(genotypes)
    ]


# ---- how far the ranking holds ----------------------------------------------------------------------------------


def correlation(one: dict[table.Names, float], other: dict[table.Names, float]) -> float:
    """Spearman's rank correlation of two columns over the genotypes of the first."""
    return float(spearmanr([*one.values()], [other[genotype] for genotype in one]).statistic)


def correlations(found: table.Table) -> dict[str, float]:
    """Means over the pairs of seeds, or over seeds; `halves`: the means of one half of the seeds and of the other.

    What is easily told apart (a sigmoid somewhere) carries most of a correlation; so the better half of the genotypes,
    chosen by validation, is looked at alone too.
    """
    each = {name: {seed: found.column(name, [seed]) for seed in found.seeds} for name in table.ACCURACIES}
    means = {name: found.column(name) for name in table.ACCURACIES}
    better = sorted(means["val"], key=means["val"].__getitem__)[len(means["val"]) // 2 :]
    told = {}
    for name in ("test", "test_twice"):
        halves = [
            (found.column(name, half), found.column(name, set(found.seeds) - set(half)))
            for half in combinations(found.seeds, len(found.seeds) // 2)
        ]
        of_better = [({genotype: half[genotype] for genotype in better}, rest) for half, rest in halves]
        pairs = {
            "between two seeds": [*combinations(each[name].values(), 2)],
            "between halves of the seeds": halves,
            "between halves of the seeds, better half of the genotypes": of_better,
        }
        told |= {f"{name}: {what}": mean([correlation(*pair) for pair in chosen]) for what, chosen in pairs.items()}
    told["test: budget and twice the budget, one seed"] = mean(
        [correlation(each["test"][seed], each["test_twice"][seed]) for seed in found.seeds]
    )
    told["test: budget and twice the budget, means"] = correlation(means["test"], means["test_twice"])
    told["validation and test, one seed"] = mean(
        [correlation(each["val"][seed], each["test"][seed]) for seed in found.seeds]
    )
    told["validation and test, means"] = correlation(means["val"], means["test"])
    return told


def standing(found: table.Table, genotype: table.Names) -> dict[str, Any]:
    return {
        "functions": list(genotype),
        "accuracy": round(found.accuracy(genotype), 5),
        "rank": found.rank(genotype),
        "percentile": round(found.percentile(genotype), 2),
    }


def summary(path: Path) -> dict[str, Any]:
    """What table.json says of table.csv: correlations, where uniform genotypes stand, the first ten, the spread."""
    told: dict[str, Any] = {"correlations": {}}
    at, twice = (table.Table.load(path, by=by) for by in ("test", "test_twice"))
    if len(at.seeds) > 1:
        told["correlations"] = {what: round(value, 4) for what, value in correlations(at).items()}
    sites = len(at.genotypes[0])
    for found in (at, twice):
        ranked = sorted(found.genotypes, key=found.rank)
        told[found.by] = {
            "best": [standing(found, genotype) for genotype in ranked[:10]],
            "accuracy at percentile": {
                str(part): round(found.accuracy(ranked[round(part / 100 * (len(ranked) - 1))]), 5)
                for part in (0, 5, 10, 25, 50, 75, 100)
            },
            "uniform": [standing(found, (name,) * sites) for name in found.functions],
        }
    told["twice the budget: percentile of the best at the budget"] = twice.percentile(min(at.genotypes, key=at.rank))
    return told


# ---- the command line -------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="of MNIST (data)")
    parser.add_argument("--seeds", type=int, default=6, help="seeds 0 to N - 1 (6)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (1)")
    parser.add_argument("--room", type=Path, default=ROOM, metavar="DIR", help=f"where seeds are kept ({ROOM})")
    parser.add_argument("--to", type=Path, default=HERE, metavar="DIR", help="where table.csv and .json go (beside me)")
    given = parser.parse_args()
    if given.seeds < 1:
        raise SystemExit(f"--seeds: at least 1 is needed, but got {given.seeds}")
    configure_process(given.threads)
    make(Settings(), task.images(given.data), range(given.seeds), given.room, given.to)


def make(settings: Settings, data: Data, seeds: Sequence[int], room: Path, to: Path) -> None:
    """Measure what is not yet in `room`, then write table.csv and table.json into `to`."""
    found_machine = machine()
    genotypes = networks(settings, data, seeds[0]).genotypes()
    measured, seconds = {}, {}
    for seed in seeds:

        def tell(epoch: int, spent: float, seed: int = seed) -> None:
            left = spent / epoch * (2 * settings.epochs * (seeds[-1] - seed + 1) - epoch)
            line = f"seed {seed}: epoch {epoch} of {2 * settings.epochs}, {spent:.0f} s; about {left / 60:.0f} min left"
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

        found = seed_file(settings, data, seed, room, tell=tell)
        measured[seed], seconds[seed] = found["accuracies"], round(found["seconds"], 1)
    to.mkdir(parents=True, exist_ok=True)
    table.write(rows(settings, genotypes, measured), to / "table.csv")
    document = {
        "settings": asdict(settings),
        "networks": f"{len(genotypes)} genotypes x {len(seconds)} seeds",
        "machine": found_machine,
        "seconds": seconds,
        **summary(to / "table.csv"),
    }
    (to / "table.json").write_text(json.dumps(document, indent=1) + "\n")
    sys.stdout.write(json.dumps({key: document[key] for key in ("networks", "correlations")}, indent=1) + "\n")


if __name__ == "__main__":
    main()
