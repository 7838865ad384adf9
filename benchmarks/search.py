"""The quality of the genotypes that strategies and derivations find, by the table of all 625 (benchmarks/genotypes).

Usage: python benchmarks/search.py --data DIR [--only CASE ...] [--json FILE]. DIR is what `nasact search --data-dir`
takes. The outcome of every search is cached under runs/search: an interrupted run continues with the next search.

Each case searches the network of the table for the table's budget, with weights on its training images and alpha on its
validation images, and keeps one function per site. The measure is the percentile of that genotype in the table: the per
cent of all genotypes with a better accuracy on test images (a mean over the table's seeds). It is compared with random
search and TPE at the same cost: they train as many genotypes, once each, as the search and derivation cost in
trainings, and keep the one with the best validation accuracy. Costs are processor times, not wall-clock times.

A case is one of CASES or the name of a registered strategy, which then runs as in a study that sets nothing else. If
FILE already holds rows of other cases with the same settings, they are kept: a new strategy runs its own case only.
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
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import torch
from command_line import publish
from genotypes import table, task
from genotypes.build_table import Settings
from machine import inspect_machine
from merge import KeptCases, keep_cases, merge_groups
from result_tables import Group, Results, Row
from torch import nn

from nasact import bilevel, derivation
from nasact.bilevel import STRATEGIES
from nasact.files import write_json
from nasact.report.statistics import mean, std
from nasact.study import Study, TrialSpec
from nasact.study.sections import Optimiser
from nasact.supernet import Genotype, relax
from nasact.tasks import Data, build_model
from nasact.training.loop import FitState, begin_fit, begin_search, fit, search
from nasact.training.process import configure_process
from nasact.training.schedule import Constant, Exponential, Schedule, build_schedule
from nasact.training.seeds import derive_seed

RUNS = Path("runs/search")
PERMUTATIONS = 20_000
SETTINGS = Settings()
ADAM = Optimiser(name="adam", lr=SETTINGS.lr)
CONSTANT = Constant()
ANNEALED = Exponential(start=1.0, end=0.05)
TARGET = 5.0
"""The largest percentile that is allowed for nasact's default strategy with its default derivation."""
HEADING = "mean percentile (0 is the best of 625)"
Names = tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """A strategy, the options that differ from its defaults, and the settings of the search around it."""

    strategy: str
    options: Mapping[str, Any] = field(default_factory=dict)
    schedule: Schedule = CONSTANT
    scale_alpha_lr: bool = True

    @property
    def definition(self) -> dict[str, Any]:
        return {
            "strategy": self.strategy,
            "options": dict(self.options),
            "temperature": repr(self.schedule),
            "scale_alpha_lr": self.scale_alpha_lr,
        }


CASES: Mapping[str, Case] = {
    "joint": Case("joint"),
    "joint, annealed": Case("joint", schedule=ANNEALED),
    "joint, annealed, alpha at one rate": Case("joint", schedule=ANNEALED, scale_alpha_lr=False),
    "darts 1": Case("darts", {"order": 1}),
    "darts 1, annealed": Case("darts", {"order": 1}, ANNEALED),
    "darts 1, annealed, alpha at one rate": Case("darts", {"order": 1}, ANNEALED, scale_alpha_lr=False),
    "darts 2, annealed": Case("darts", {"order": 2}, ANNEALED),
    "implicit, annealed": Case("implicit", {"iterations": 3}, ANNEALED),
    "unrolled, annealed": Case("unrolled", {}, ANNEALED),
}
"""Strategies with other settings than their defaults. A case here comes before a registered strategy of its name."""
SAME_FUNCTIONS = {"refit": "magnitude"}
"""Derivations that are not ranked: with one function per site they keep the functions of another derivation."""
RANKED_DERIVATIONS = tuple(name for name in derivation.DERIVATIONS.names() if name not in SAME_FUNCTIONS)


def ranked_by_default() -> tuple[str, ...]:
    """CASES, then every registered strategy that has no case there."""
    covered = {case.strategy for case in CASES.values()}
    return (*CASES, *(name for name in STRATEGIES.names() if name not in covered))


def find_case(name: str) -> Case | None:
    """The case of this name, or the registered strategy with its defaults; None if there is neither."""
    if name in CASES or name not in STRATEGIES:
        return CASES.get(name)
    temperature = _spec_with({"strategy": name}).search.temperature
    return Case(name, {}, build_schedule(temperature), temperature.scale_alpha_lr)


def default_of_a_study() -> tuple[str, str]:
    """Strategy and derivation of a study that names neither."""
    spec = _spec_with({})
    return spec.search.strategy.name, spec.derive.method.name


def _spec_with(search: Mapping[str, Any]) -> TrialSpec:
    tree = {"task": {"dataset": "digits", "model": "mlp"}, "search_space": list(task.FUNCTIONS), "search": search}
    return Study.from_tree(tree).spec


# ---- one search -------------------------------------------------------------------------------------------------


def run_search(name: str, seed: int, data_dir: Path, runs: Path, epochs: int) -> dict[str, Any]:
    """Return the genotypes derived from one search, with their costs in trainings of one network.

    Reads the outcome from its file in `runs` if the same search was done before.
    """
    configure_process(1)
    case = find_case(name)
    assert case is not None
    key = repr((case, RANKED_DERIVATIONS, seed, epochs, SETTINGS))
    path = runs / f"{name.replace(' ', '-').replace(',', '')}-{seed}.json"
    if path.exists():
        cached: dict[str, Any] = json.loads(path.read_text())
        if cached["key"] == key:
            return cached
    data = task.images(data_dir)

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
    context = derivation.DerivationContext(
        run=run, train=data.train, val=data.val, begin=begin, optimiser=ADAM, loss=run.state.loss,
        batch_size=SETTINGS.batch_size, fit_batch_size=SETTINGS.batch_size, seed=derive_seed(seed, "derive"),
    )  # fmt: skip
    derived = {}
    for method in RANKED_DERIVATIONS:
        started = time.process_time()
        genotype = derivation.derive_by(derivation.build(method, {}), context, 1).genotype
        derived[method] = {
            "functions": [gene.functions[0] for gene in genotype.sites.values()],
            "trainings": (searching + time.process_time() - started) / training,
        }
    entropy = mean(list(supernet.entropy().values()))
    outcome = {"key": key, "derived": derived, "mixture": accuracy, "entropy": entropy}
    write_json(path, outcome)
    return outcome


def _model(data: Data, seed: int) -> nn.Module:
    return build_model(task.MODEL, task.MODEL_OPTIONS, input_shape=data.input_shape, classes=data.classes, seed=seed)


def run_searches(args: argparse.Namespace, seeds: int, epochs: int) -> dict[str, list[dict[str, Any]]]:
    """Return the outcomes of each case in `args.only`, one per seed."""
    searches = [(name, seed) for seed in range(seeds) for name in args.only]
    outcomes: dict[str, list[dict[str, Any]]] = {name: [] for name in args.only}
    started = time.perf_counter()
    with ProcessPoolExecutor(args.processes, multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(run_search, *each, args.data, args.runs, epochs) for each in searches]
        for done, ((name, seed), future) in enumerate(zip(searches, futures, strict=True), 1):
            outcome = future.result()
            outcomes[name].append(outcome)
            remaining = (time.perf_counter() - started) / done * (len(searches) - done)
            genotypes = ", ".join(" ".join(derived["functions"]) for derived in outcome["derived"].values())
            sys.stderr.write(
                f"{done}/{len(searches)} {name}, seed {seed}: {genotypes}; about {remaining / 60:.0f} min left\n"
            )
    return outcomes


# ---- what the genotypes are compared with -----------------------------------------------------------------------


def random_search(count: int, genotypes: table.Table, draws: int, seed: int = 0) -> list[float]:
    """Percentiles of random search: of `count` drawn genotypes, the best by one training's validation accuracy."""
    rng = random.Random(seed)
    accuracies = [genotypes.column("val", [one]) for one in genotypes.seeds]
    names = genotypes.genotypes
    percentiles = {genotype: genotypes.percentile(genotype) for genotype in names}
    found = []
    for _ in range(draws):
        drawn = rng.sample(names, min(count, len(names)))
        found.append(percentiles[max(drawn, key=lambda genotype: rng.choice(accuracies)[genotype])])
    return found


def tpe_search(count: int, genotypes: table.Table, draws: int) -> list[float]:
    """Percentiles of Optuna's TPE after `count` trials, each of which gets one training's validation accuracy."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    accuracies = [genotypes.column("val", [one]) for one in genotypes.seeds]
    found = []
    for draw in range(draws):
        rng = random.Random(draw)

        def objective(trial: optuna.Trial, rng: random.Random = rng) -> float:
            chosen = tuple(trial.suggest_categorical(str(site), task.FUNCTIONS) for site in range(task.SITES))
            trial.set_user_attr("genotype", chosen)
            return rng.choice(accuracies)[chosen]

        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=draw))
        study.optimize(objective, n_trials=count)
        found.append(genotypes.percentile(study.best_trial.user_attrs["genotype"]))
    return found


def p_value(observed: Sequence[float], reference: Sequence[float], seed: int = 1) -> float:
    """One-sided p of a permutation test: how often a draw from both samples has a mean as low as that of `observed`."""
    rng, observed_mean, pooled = random.Random(seed), mean(observed), [*observed, *reference]
    as_good = sum(mean(rng.sample(pooled, len(observed))) <= observed_mean for _ in range(PERMUTATIONS))
    return (1 + as_good) / (1 + PERMUTATIONS)


def agreement(genotypes: Sequence[Names]) -> float:
    """The share of sites at which two searches derive the same function, a mean over all pairs of seeds."""
    pairs = list(combinations(genotypes, 2))
    return mean([mean([float(a == b) for a, b in zip(one, other, strict=True)]) for one, other in pairs])


# ---- the results ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ranking:
    """The rows of cases, and what each cost: `costs[case][derivation]` in trainings of one network."""

    groups: tuple[Group, ...]
    costs: Mapping[str, Mapping[str, int]]


def rank(outcomes: Mapping[str, Sequence[Mapping[str, Any]]], draws: int) -> Ranking:
    """Rank the genotypes of each case, one group per derivation."""
    budget, twice = table.Table.load(by="test"), table.Table.load(by="test_twice")
    costs: dict[str, dict[str, int]] = {name: {} for name in outcomes}
    groups = []
    for method in RANKED_DERIVATIONS:
        rows = []
        for name, runs in outcomes.items():
            derived = [run["derived"][method] for run in runs]
            genotypes = [tuple(each["functions"]) for each in derived]
            cost = costs[name][method] = max(1, round(median([each["trainings"] for each in derived])))
            percentiles = [budget.percentile(genotype) for genotype in genotypes]
            p = p_value(percentiles, random_search(cost, budget, draws))
            at_twice = mean([twice.percentile(genotype) for genotype in genotypes])
            shown = (
                f"{mean(percentiles):.1f} (sd {std(percentiles):.1f}); at twice {at_twice:.1f}; "
                f"agree {100 * agreement(genotypes):.0f} %; cost {cost}; p {p:.2g}"
            )
            rows.append(Row(what=f"{name}: {method}", value=mean(percentiles), low=min(percentiles),
                            high=max(percentiles), shown=shown,
                            at_most=TARGET if (name, method) == default_of_a_study() else None))  # fmt: skip
        groups.append(Group(f"Derived by `{method}`", tuple(rows), HEADING))
    return Ranking(tuple(groups), costs)


def add_kept(ranking: Ranking, kept: KeptCases) -> Ranking:
    """`ranking` with the rows of the cases that an earlier run measured."""
    groups = [group for group in kept.groups if group.title != COMPARISON]
    merged = merge_groups(groups, ranking.groups, lambda _, row: row.what.rpartition(": ")[0] in kept.records)
    return Ranking(merged, {**{name: record["costs"] for name, record in kept.records.items()}, **ranking.costs})


COMPARISON = "What they are compared with"


def compare_all(ranking: Ranking, draws: int) -> tuple[Group, ...]:
    """The groups of `ranking`, best row first, and what all of them are compared with: at the cost of every case."""
    groups = [Group(group.title, tuple(sorted(group.rows, key=lambda row: row.value)), group.measured)
              for group in ranking.groups]  # fmt: skip
    costs = {f"{name}: {method}": cost for name, methods in ranking.costs.items() for method, cost in methods.items()}
    best = min((row.value, costs[row.what]) for group in groups for row in group.rows)
    budget, twice = table.Table.load(by="test"), table.Table.load(by="test_twice")
    rows = []
    for name in task.FUNCTIONS:
        genotype = (name,) * task.SITES
        percentile, at_twice = budget.percentile(genotype), twice.percentile(genotype)
        rows.append(Row(what=f"{name} at every site", value=percentile, low=percentile, high=percentile,
                        shown=f"{percentile:.1f}; at twice {at_twice:.1f}"))  # fmt: skip
    for cost in sorted({1, *costs.values(), 25}):
        rows.append(_row(f"random search, cost {cost}", random_search(cost, budget, draws)))
    for cost in sorted({best[1], 10, 25}):
        rows.append(_row(f"TPE over genotypes, cost {cost}", tpe_search(cost, budget, max(10, draws // 40))))
    return (*groups, Group(COMPARISON, tuple(rows), HEADING))


def _row(what: str, percentiles: Sequence[float]) -> Row:
    shown = f"{mean(percentiles):.1f} (sd {std(percentiles):.1f})"
    return Row(what=what, value=mean(percentiles), low=min(percentiles), high=max(percentiles), shown=shown)


def run_settings(seeds: int, epochs: int, draws: int) -> dict[str, Any]:
    """The settings that all rows of one ranking share."""
    return {"seeds": seeds, "draws": draws, "derivations": RANKED_DERIVATIONS, **asdict(SETTINGS), "epochs": epochs}


def definition(name: str) -> dict[str, Any] | None:
    case = find_case(name)
    return None if case is None else case.definition


def _case_name(text: str) -> str:
    if find_case(text) is None:
        known = ", ".join(f"{name!r}" for name in dict.fromkeys([*CASES, *STRATEGIES.names()]))
        raise argparse.ArgumentTypeError(f"expected a case or a registered strategy ({known}), but got {text!r}")
    return text


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="folder of MNIST (data)")
    parser.add_argument("--seeds", type=int, default=10, help="searches per case (default: 10)")
    parser.add_argument("--processes", type=int, default=2, help="parallel searches, one thread each (default: 2)")
    parser.add_argument("--only", nargs="+", type=_case_name, default=list(ranked_by_default()), metavar="CASE",
                        help="run only these cases or registered strategies; FILE keeps its other rows")  # fmt: skip
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help=f"cache of searches (default: {RUNS})")
    parser.add_argument("--quick", action="store_true", help="smoke test: four epochs, two seeds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to FILE")
    return parser.parse_args()


def build_results(
    outcomes: Mapping[str, Sequence[Mapping[str, Any]]],
    kept: KeptCases,
    settings: Mapping[str, Any],
    machine: dict[str, str],
    quick: bool = False,
) -> Results:
    """The results of `outcomes`, with the rows of the cases that an earlier run measured."""
    ranking = rank(outcomes, settings["draws"])
    cases = {name: {"definition": definition(name), "costs": ranking.costs[name]} for name in outcomes}
    groups = compare_all(add_kept(ranking, kept), settings["draws"])
    return Results("search", machine, groups, quick, settings, {**kept.records, **cases})


def main() -> None:
    args = parse_arguments()
    seeds, epochs, draws = (2, 4, 50) if args.quick else (args.seeds, SETTINGS.epochs, 2000)
    if seeds < 2:
        raise SystemExit(f"--seeds: a spread needs at least 2 seeds, but got {seeds}")
    configure_process(1)
    machine = inspect_machine()
    settings = run_settings(seeds, epochs, draws)
    kept = keep_cases(args.json, settings, args.only, definition)  # before the searches: its lines may change the plan
    outcomes = run_searches(args, seeds, epochs)
    publish(build_results(outcomes, kept, settings, machine, args.quick), args.json)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
