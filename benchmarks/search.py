"""How good the genotypes are that strategies and derivations find, by the table of all 625 (benchmarks/genotypes).

Run it where nasact is installed: python benchmarks/search.py --data DIR [--seeds N] [--json FILE]; DIR is what
`nasact search --data-dir` takes. Every search is kept under runs/search: stopped, it goes on with the next.

Each searches the network of the table for the table's budget, weights on its training images and alpha on its
validation images, and keeps one function a site. What is judged is the table's accuracy of that genotype on test
images (a mean over the table's seeds): the per cent of all genotypes that are better. Against it stand random search
and TPE at the same cost: as many genotypes, each trained once, as search and derivation took trainings, the best of
them by validation accuracy. Costs are times of the processor, not of the clock.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import torch
from genotypes import table, task
from genotypes.make import Settings
from report import Group, Results, Row, machine, publish
from torch import nn

from nasact import bilevel, derivation
from nasact.files import write_json
from nasact.report.statistics import mean, std
from nasact.study.spec import Optimiser
from nasact.supernet import Genotype, relax
from nasact.tasks import Data, build_model
from nasact.training.loop import FitState, begin_fit, begin_search, fit, search
from nasact.training.process import configure_process
from nasact.training.schedule import Constant, Exponential, Linear, Schedule
from nasact.training.seeds import derive_seed

ROOM = Path("runs/search")
DRAWS = 20_000
SETTINGS = Settings()
ADAM = Optimiser(name="adam", lr=SETTINGS.lr)
WINNER = ("gdas", "magnitude")
"""nasact's default: what has to meet the target."""
CONSTANT = Constant()
ANNEALED = Exponential(start=1.0, end=0.05)
Names = tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """A strategy with its options, its own where none are said, and what the search around it is told."""

    strategy: str
    options: Mapping[str, Any] = field(default_factory=dict)
    schedule: Schedule = CONSTANT
    scale_alpha_lr: bool = True


CASES: Mapping[str, Case] = {
    "random": Case("random"),
    "joint": Case("joint"),
    "joint, annealed": Case("joint", schedule=ANNEALED),
    "joint, annealed, alpha at one rate": Case("joint", schedule=ANNEALED, scale_alpha_lr=False),
    "cycles": Case("cycles"),
    "darts 1": Case("darts", {"order": 1}),
    "darts 1, annealed": Case("darts", {"order": 1}, ANNEALED),
    "darts 1, annealed, alpha at one rate": Case("darts", {"order": 1}, ANNEALED, scale_alpha_lr=False),
    "darts 2, annealed": Case("darts", {"order": 2}, ANNEALED),
    "implicit, annealed": Case("implicit", {"iterations": 3}, ANNEALED),
    "unrolled, annealed": Case("unrolled", {}, ANNEALED),
    "gdas": Case("gdas", {}, Linear(start=10.0, end=0.1)),
    "gaea": Case("gaea"),
    "drnas": Case("drnas"),
    "fair": Case("fair"),
    "shrink": Case("shrink"),
}
DERIVATIONS = ("magnitude", "perturbation", "validated")
"""With one function a site `refit` keeps the functions of `magnitude`: the table could not tell them apart."""


def images(data_dir: Path) -> Data:
    return task.images(data_dir)


def outcome(name: str, seed: int, data_dir: Path, room: Path, epochs: int) -> dict[str, Any]:
    """The genotypes derived from one search, and their costs in trainings of one network; from its file where it is."""
    configure_process(1)
    case = CASES[name]
    key = repr((case, DERIVATIONS, seed, epochs, SETTINGS))
    path = room / f"{name.replace(' ', '-').replace(',', '')}-{seed}.json"
    if path.exists():
        kept: dict[str, Any] = json.loads(path.read_text())
        if kept["key"] == key:
            return kept
    data = images(data_dir)

    def begin(genotype: Genotype | None, own_seed: int) -> FitState:
        model = _model(data, derive_seed(own_seed, "model"))
        return begin_fit(genotype.apply(model) if genotype else model, ADAM, seed=own_seed)

    started = time.process_time()
    for _ in fit(begin(None, seed), data.train, epochs=1, batch_size=SETTINGS.batch_size):
        pass
    training = (time.process_time() - started) * epochs

    strategy = bilevel.build(case.strategy, case.options)
    normaliser = strategy.normalisers[0] if strategy.normalisers else "softmax"
    started = time.process_time()
    supernet = relax(_model(data, derive_seed(seed, "w")), task.FUNCTIONS, normaliser=normaliser)
    run = begin_search(supernet, strategy, ADAM, seed=seed, schedule=case.schedule, scale_alpha_lr=case.scale_alpha_lr)
    accuracy = 0.0
    for epoch in search(run, data.train, data.val, epochs=epochs, batch_size=SETTINGS.batch_size):
        accuracy = epoch.metrics["val_accuracy"]
    searching = time.process_time() - started
    given = derivation.DerivationContext(
        run=run, train=data.train, val=data.val, begin=begin, optimiser=ADAM, loss=run.state.loss,
        batch_size=SETTINGS.batch_size, fit_batch_size=SETTINGS.batch_size, seed=derive_seed(seed, "derive"),
    )  # fmt: skip
    derived = {}
    for method in DERIVATIONS:
        started = time.process_time()
        genotype = derivation.derive_by(derivation.build(method, {}), given, 1).genotype
        functions = [gene.functions[0] for gene in genotype.sites.values()]
        derived[method] = {
            "functions": functions,
            "trainings": (searching + time.process_time() - started) / training,
        }
    entropy = mean(list(supernet.entropy().values()))
    found = {"key": key, "derived": derived, "mixture": accuracy, "entropy": entropy}
    write_json(path, found)
    return found


def _model(data: Data, seed: int) -> nn.Module:
    return build_model(task.MODEL, task.MODEL_OPTIONS, input_shape=data.input_shape, classes=data.classes, seed=seed)


# ---- what it is measured by -------------------------------------------------------------------------------------


def best_of(count: int, judged: table.Table, draws: int, seed: int = 0) -> list[float]:
    """Percentiles of what random search finds: the best, by one training's validation accuracy, of `count` drawn."""
    rng = random.Random(seed)
    seen = [judged.column("val", [one]) for one in judged.seeds]
    names, place = judged.genotypes, {genotype: judged.percentile(genotype) for genotype in judged.genotypes}
    found = []
    for _ in range(draws):
        chosen = rng.sample(names, min(count, len(names)))
        found.append(place[max(chosen, key=lambda genotype: rng.choice(seen)[genotype])])
    return found


def by_tpe(count: int, judged: table.Table, draws: int) -> list[float]:
    """Percentiles of what Optuna's TPE finds in `count` trials, each told one training's validation accuracy."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seen = [judged.column("val", [one]) for one in judged.seeds]
    found = []
    for draw in range(draws):
        rng = random.Random(draw)

        def objective(trial: optuna.Trial, rng: random.Random = rng) -> float:
            chosen = tuple(trial.suggest_categorical(str(site), task.FUNCTIONS) for site in range(task.SITES))
            trial.set_user_attr("genotype", chosen)
            return rng.choice(seen)[chosen]

        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=draw))
        study.optimize(objective, n_trials=count)
        found.append(judged.percentile(study.best_trial.user_attrs["genotype"]))
    return found


def chance(observed: Sequence[float], under: Sequence[float], seed: int = 1) -> float:
    """One-sided p of a permutation test: how often as many, drawn from both together, are as good in the mean."""
    rng, own, both = random.Random(seed), mean(observed), [*observed, *under]
    as_good = sum(mean(rng.sample(both, len(observed))) <= own for _ in range(DRAWS))
    return (1 + as_good) / (1 + DRAWS)


def agreement(genotypes: Sequence[Names]) -> float:
    """The share of sites at which two searches derive the same function, a mean over pairs of seeds."""
    pairs = list(combinations(genotypes, 2))
    return mean([mean([float(a == b) for a, b in zip(one, other, strict=True)]) for one, other in pairs])


def groups(outcomes: Mapping[str, Sequence[Mapping[str, Any]]], draws: int) -> tuple[Group, ...]:
    now, later = table.Table.load(by="test"), table.Table.load(by="test_twice")
    head = "mean percentile (0 is the best of 625)"
    found, costs, made = [], {}, []
    for method in DERIVATIONS:
        rows = []
        for name, runs in outcomes.items():
            derived = [run["derived"][method] for run in runs]
            genotypes = [tuple(one["functions"]) for one in derived]
            cost = max(1, round(median([one["trainings"] for one in derived])))
            places = [now.percentile(genotype) for genotype in genotypes]
            costs[method, name] = cost
            p, twice = chance(places, best_of(cost, now, draws)), mean([later.percentile(each) for each in genotypes])
            shown = (
                f"{mean(places):.1f} (sd {std(places):.1f}); at twice {twice:.1f}; "
                f"agree {100 * agreement(genotypes):.0f} %; cost {cost}; p {p:.2g}"
            )
            target = 5.0 if (name, method) == WINNER else None
            rows.append(Row(what=f"{name}: {method}", value=mean(places), low=min(places), high=max(places),
                            at_most=target, shown=shown))  # fmt: skip
            found.append((mean(places), cost))
        made.append(Group(f"Derived by `{method}`", tuple(sorted(rows, key=lambda row: row.value)), head))
    others = []
    for name in task.FUNCTIONS:
        genotype = (name,) * task.SITES
        both = now.percentile(genotype), later.percentile(genotype)
        others.append(Row(what=f"{name} at every site", value=both[0], low=both[0], high=both[0],
                          shown=f"{both[0]:.1f}; at twice {both[1]:.1f}"))  # fmt: skip
    for cost in sorted({1, *costs.values(), 25}):
        others.append(_row(f"random search, cost {cost}", best_of(cost, now, draws)))
    for cost in sorted({min(found)[1], 10, 25}):
        others.append(_row(f"TPE over genotypes, cost {cost}", by_tpe(cost, now, max(10, draws // 40))))
    return (*made, Group("What they are compared with", tuple(others), head))


def _row(what: str, places: Sequence[float]) -> Row:
    shown = f"{mean(places):.1f} (sd {std(places):.1f})"
    return Row(what=what, value=mean(places), low=min(places), high=max(places), shown=shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="of MNIST (data)")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2, help="searches at a time, one thread each (2)")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="these cases alone")
    parser.add_argument("--room", type=Path, default=ROOM, metavar="DIR", help=f"where searches are kept ({ROOM})")
    parser.add_argument("--quick", action="store_true", help="four epochs, two seeds: a smoke test")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to FILE")
    given = parser.parse_args()
    seeds, epochs, draws = (2, 4, 50) if given.quick else (given.seeds, SETTINGS.epochs, 2000)
    if seeds < 2:
        raise SystemExit(f"--seeds: at least 2 are needed to see a spread, but got {seeds}")
    configure_process(1)
    found = machine()
    runs = [(name, seed) for seed in range(seeds) for name in given.only]
    outcomes: dict[str, list[dict[str, Any]]] = {name: [] for name in given.only}
    started = time.perf_counter()
    with ProcessPoolExecutor(given.processes, multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(outcome, *run, given.data, given.room, epochs) for run in runs]
        for done, (run, future) in enumerate(zip(runs, waiting, strict=True), 1):
            told = future.result()
            outcomes[run[0]].append(told)
            left = (time.perf_counter() - started) / done * (len(runs) - done)
            names = ", ".join(" ".join(one["functions"]) for one in told["derived"].values())
            sys.stderr.write(f"{done}/{len(runs)} {run[0]}, seed {run[1]}: {names}; about {left / 60:.0f} min left\n")
    publish(Results("search", found, groups(outcomes, draws), given.quick), given.json)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
