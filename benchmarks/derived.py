"""Whether the network that is derived keeps what the search promised, and beats the best single function of its bank.

Run it where nasact is installed: python benchmarks/derived.py --data DIR [--json FILE]; DIR holds FashionMNIST as
torchvision lays it out, and CIFAR10 so too or as cifar10-jpeg.tar (train/ and test/, a folder a class). Every training
is kept under runs/derived: stopped, it goes on with the next; `--found` trains nothing and tells what is there.

Two tasks of 10,000 images, a fifth of them held out for validation; a seed decides which, and how networks begin. Each
function of the bank is trained at all sites, and every case is a trial as a study runs it: search, derive k = 1,
retrain from scratch. All networks of one seed see the same images, begin with the same weights and have the same
budget, so they are compared in pairs. The test set measures the trained networks and chooses nothing.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from images import cifar10
from report import Group, Results, Row, machine, publish
from torch import nn

from nasact.compare import single_genotypes
from nasact.files import write_json
from nasact.report.statistics import compare_variants, mean, std
from nasact.study import Study, TrialSpec
from nasact.tasks import Data, Split, load_data
from nasact.training.checkpoint import Checkpoint
from nasact.training.metrics import evaluate
from nasact.training.process import configure_process
from nasact.trial import TrialResult, begin_retrain, derived_model, retrain_epochs, run_trial, trial_key

ROOM = Path("runs/derived")
IMAGES = 10_000
FUNCTIONS = ("relu", "tanh", "sigmoid", "identity", "sin", "silu")
EPOCHS = 8
Tree, Outcome = Mapping[str, Any], dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What a study is told of its task, the bank, and for how many epochs every network is trained."""

    title: str
    dataset: str
    model: Mapping[str, Any]
    images: int
    functions: tuple[str, ...] = FUNCTIONS
    epochs: int = EPOCHS


SMALL_CNN = {"name": "small_cnn", "width": 0.5}
TASKS: Mapping[str, Task] = {
    "fashion_mnist": Task("Fashion-MNIST", "fashion_mnist", SMALL_CNN, IMAGES),
    "cifar10": Task("CIFAR-10", "cifar10", SMALL_CNN, IMAGES),
}
SMOKE: Mapping[str, Task] = {"digits": Task("digits", "digits", {"name": "mlp"}, 300, ("relu", "identity"), 2)}

DRAWN = {"strategy": "gdas", "temperature": {"start": 10.0, "end": 0.1, "schedule": "linear"}}
JOINT = {"strategy": "joint", "temperature": {"start": 1.0, "end": 0.05, "schedule": "exponential"}}
DARTS = {**JOINT, "strategy": {"name": "darts", "order": 1}}
CASES: Mapping[str, Tree] = {
    "gdas": {"search": DRAWN},
    "joint, annealed": {"search": JOINT},
    "gdas, validated": {"search": DRAWN, "derive": {"method": "validated"}},
    "darts 1, annealed, perturbation": {"search": DARTS, "derive": {"method": "perturbation"}},
}
"""As a study says it; what a case does not name is as in every other case."""
JUDGED = "gdas"  # the case that the targets are for: nasact's default
ALL_TASKS = {**TASKS, **SMOKE}


def tree(task: Task, seed: int, case: Tree) -> dict[str, Any]:
    """The study of a case, but for where its images lie."""
    return {
        "name": "derived",
        "seed": seed,
        "task": {"dataset": task.dataset, "model": dict(task.model), "train_limit": task.images, "validation": 0.2},
        "search_space": list(task.functions),
        "search": {
            "epochs": task.epochs,
            "batch_size": 64,
            "optimiser": {"name": "adam", "lr": 1e-3},
            **case.get("search", {}),
        },
        "derive": {"top_k": 1, **case.get("derive", {})},
        "retrain": {"epochs": task.epochs},
    }


def spec_of(task: Task, seed: int, case: Tree, dataset: Any) -> TrialSpec:
    written = tree(task, seed, case)
    written["task"]["dataset"] = dataset
    return Study.from_tree(written).spec


# ---- one training -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A whole trial of a case, or, where `name` is a function, the training of that function at all sites."""

    task: str
    name: str
    seed: int

    @property
    def case(self) -> Tree | None:
        return CASES.get(self.name)

    @property
    def title(self) -> str:
        return "-".join((self.task, *self.name.replace(",", "").split(), str(self.seed)))

    def path(self, room: Path) -> Path:
        return room / ("singles" if self.case is None else "trials") / f"{self.title}.json"

    def key(self) -> str:
        """All settings; of a single function those alone that its training reads."""
        written = tree(ALL_TASKS[self.task], self.seed, self.case or {})
        if self.case is not None:
            return repr(written)
        read = [written["search"][part] for part in ("batch_size", "optimiser")]
        return repr((self.name, self.seed, written["task"], read, written["retrain"]))

    def known(self, room: Path) -> Outcome | None:
        path = self.path(room)
        if not path.exists():
            return None
        found: Outcome = json.loads(path.read_text())
        return found if found["key"] == self.key() else None


@lru_cache(maxsize=2)
def images(task_name: str, seed: int, data_dir: Path, room: Path) -> tuple[Data, Any]:
    """The images of a task, and its data set as a study names it."""
    task = ALL_TASKS[task_name]
    dataset = cifar10(data_dir, room, IMAGES) if task.dataset == "cifar10" else task.dataset
    told = spec_of(task, seed, {}, dataset).task
    options, split = told.dataset.options, {"validation": told.validation, "train_limit": told.train_limit}
    return load_data(told.dataset.name, options, seed=seed, data_dir=data_dir, **split), dataset


def outcome(job: Job, data_dir: Path, room: Path) -> Outcome:
    """What a training found, in per cent; from its file where it is."""
    found = job.known(room)
    if found is not None:
        return found
    configure_process(1)
    data, dataset = images(job.task, job.seed, data_dir, room)
    spec = spec_of(ALL_TASKS[job.task], job.seed, job.case or {}, dataset)
    own = single(spec, data, job.name) if job.case is None else trial(spec, data, room / "running" / job.title)
    found = {"key": job.key(), **own}
    write_json(job.path(room), found)
    return found


def single(spec: TrialSpec, data: Data, function: str) -> Outcome:
    """One function at all sites, trained as a trial retrains what it derived."""
    began = time.process_time()
    state = begin_retrain(spec, data, single_genotypes(spec, data)[function], "retrain")
    for _ in retrain_epochs(spec, state, data.train, "retrain"):
        pass
    seconds = time.process_time() - began
    return {"val": accuracy(state.model, data.val), "test": accuracy(state.model, data.test.open()), "seconds": seconds}


def trial(spec: TrialSpec, data: Data, room: Path) -> Outcome:
    """A whole trial, and the test accuracy of the network that it retrained."""
    shutil.rmtree(room, ignore_errors=True)  # one that was killed begins anew: its time is measured whole
    began = time.process_time()
    result, weights = run(spec, data, room)
    seconds = time.process_time() - began
    if result.status != "complete" or result.genotype is None or weights is None:
        raise SystemExit(f"{room.name}: {result.status}: {result.reason}")
    model = derived_model(spec, data, result.genotype, 0)
    model.load_state_dict(weights)
    metrics = {name: 100 * result.metrics[name] for name in ("search_val_accuracy", "derived_val_accuracy", "gap")}
    if accuracy(model, data.val) != metrics["derived_val_accuracy"]:
        raise SystemExit(f"{room.name}: the weights in the last checkpoint are not those that the trial measured")
    shutil.rmtree(room)
    return {
        "mixture": metrics["search_val_accuracy"],
        "val": metrics["derived_val_accuracy"],
        "gap": metrics["gap"],
        "test": accuracy(model, data.test.open()),
        "functions": [gene.functions[0] for gene in result.genotype.sites.values()],
        "entropy": result.metrics["entropy"],
        "seconds": seconds,
    }


def run(spec: TrialSpec, data: Data, room: Path) -> tuple[TrialResult, Mapping[str, Any] | None]:
    """The trial to its end, with the weights after its last epoch: a trial hands out no network."""
    running, weights = run_trial(spec, data, directory=room), None
    while True:
        try:
            report = next(running)
        except StopIteration as end:
            return end.value, weights
        if report.phase == "retrain" and report.epoch == report.epochs:
            payload = Checkpoint(room / "checkpoint.pt", trial_key(spec, data)).load()
            weights = None if payload is None else payload["state"]["model"]


def accuracy(model: nn.Module, split: Split) -> float:
    return 100 * evaluate(model, split, place="after training").accuracy


# ---- what is told -----------------------------------------------------------------------------------------------


class Runs(dict[int, Outcome]):
    """What one function or case found with each seed."""

    def column(self, what: str, seeds: Iterable[int]) -> list[float]:
        return [self[seed][what] for seed in seeds]


def spread(values: Sequence[float], unit: str) -> str:
    return f"{mean(values):{'+' if unit == 'points' else ''}.2f} {unit} (sd {std(values):.2f})"


def row(what: str, values: Sequence[float], unit: str, shown: str, **rest: Any) -> Row:
    return Row(what=what, value=mean(values), low=min(values), high=max(values), unit=unit, shown=shown, **rest)


def against(derived: Sequence[float], single: Sequence[float]) -> str:
    """The difference, paired by seed; p as in a study's comparison: with five seeds never below 0.06."""
    contrast = compare_variants(derived, {"single": single})[0]
    low, high = contrast.ci95 or (contrast.difference,) * 2
    return f"{contrast.difference:+.2f} points (95 % interval {low:+.2f} to {high:+.2f}; p {contrast.p:.2g})"


def groups(found: Mapping[Job, Outcome]) -> tuple[Group, ...]:
    """Targets first; then, task by task, the functions and the cases over the seeds that are there."""
    runs: dict[tuple[str, str], Runs] = {}
    for job, told in found.items():
        runs.setdefault((job.task, job.name), Runs())[job.seed] = told
    aims, rest = [], []
    for name, task in ALL_TASKS.items():
        singles = {one: runs.get((name, one), Runs()) for one in task.functions}
        if set.intersection(*map(set, singles.values())):
            cases = {case: runs[name, case] for case in CASES if (name, case) in runs}
            targets, others = told_of(task, singles, cases)
            aims += targets
            rest += others
    return (*([Group(f"Targets, for {JUDGED}", tuple(aims), "mean over seeds")] if aims else []), *rest)


def told_of(task: Task, singles: Mapping[str, Runs], cases: Mapping[str, Runs]) -> tuple[list[Row], list[Group]]:
    seeds = sorted(set.intersection(*map(set, singles.values())))
    best, hindsight = (max(singles, key=lambda one: mean(singles[one].column(part, seeds))) for part in ("val", "test"))
    functions, aims, gaps, tests, chosen = [], [], [], [], []
    for name, runs in singles.items():
        val, test = runs.column("val", seeds), runs.column("test", seeds)
        marks = "; the best single" * (name == best) + "; best on test" * (name == hindsight)
        functions.append(row(name, val, "%", f"{spread(val, '%')}; {spread(test, '%')}{marks}"))
    functions.sort(key=lambda row: row.value, reverse=True)
    training = mean([seconds for runs in singles.values() for seconds in runs.column("seconds", seeds)])
    for name, runs in cases.items():
        both = sorted(set(runs) & set(seeds))
        if not both:
            continue
        gap, mixture, val, test = (runs.column(what, both) for what in ("gap", "mixture", "val", "test"))
        single = singles[best].column("test", both)
        behind = [other - own for own, other in zip(test, single, strict=True)]
        shown = f"{spread(gap, 'points')}: {mean(mixture):.2f} % - {mean(val):.2f} %; {len(both)} seeds"
        difference = against(test, single)
        gaps.append(row(name, gap, "points", shown))
        tests.append(row(name, test, "%", f"{spread(test, '%')}; {difference}"))
        cost = [seconds / training for seconds in runs.column("seconds", both)]
        genotypes = " / ".join(" ".join(runs[seed]["functions"]) for seed in both)
        chosen.append(row(name, cost, "", f"{mean(cost):.1f}: {genotypes}"))
        if name == JUDGED:
            aims.append(row(f"discretisation gap, {task.title}", gap, "points", shown, at_most=1.0))
            told = f"{mean(behind):+.2f} points; k = 1 less {best}: {difference}"
            aims.append(row(f"best single less k = 1 on test, {task.title}", behind, "points", told, at_most=0.0))
    parts = [Group(f"{task.title}: one function at all sites", tuple(functions), "validation; test")]
    for title, rows, head in (
        ("discretisation gap", gaps, "mixture - derived, validation"),
        ("derived networks, k = 1", tests, f"test; less {best}"),
        ("what was derived, seed by seed", chosen, "cost in trainings: functions"),
    ):
        parts += [Group(f"{task.title}: {title}", tuple(rows), head)] if rows else []
    return aims, parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="of both data sets (data)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2, help="trainings at a time, one thread each (2)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="these tasks alone")
    parser.add_argument("--only", nargs="+", choices=("singles", *CASES), default=["singles", *CASES])
    parser.add_argument("--room", type=Path, default=ROOM, metavar="DIR", help=f"where trainings are kept ({ROOM})")
    parser.add_argument("--found", action="store_true", help="train nothing; tell what is there")
    parser.add_argument("--quick", action="store_true", help="digits, two epochs, two seeds: a smoke test")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to FILE")
    given = parser.parse_args()
    tasks, seeds = (list(SMOKE), 2) if given.quick else (given.tasks, given.seeds)
    if seeds < 2:
        raise SystemExit(f"--seeds: at least 2 are needed to see a spread, but got {seeds}")
    configure_process(1)
    here = machine()
    everything = jobs(tasks, range(seeds))
    if not given.found:
        train([job for job in everything if (job.name if job.case else "singles") in given.only], given)
    found = {job: told for job in everything if (told := job.known(given.room))}
    publish(Results("derived", here, groups(found), given.quick), given.json)


def jobs(tasks: Sequence[str], seeds: Iterable[int]) -> list[Job]:
    """All single functions first; then every case for one seed after the other."""
    singles = [Job(task, name, seed) for task in tasks for seed in seeds for name in ALL_TASKS[task].functions]
    return singles + [Job(task, name, seed) for seed in seeds for task in tasks for name in CASES]


def train(wanted: Sequence[Job], given: argparse.Namespace) -> None:
    missing = [job for job in wanted if job.known(given.room) is None]
    if any(job.task == "cifar10" for job in missing):
        cifar10(given.data, given.room, IMAGES)  # before two processes do
    started = time.perf_counter()
    with ProcessPoolExecutor(given.processes, multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(outcome, job, given.data, given.room) for job in missing]
        for done, (job, future) in enumerate(zip(missing, waiting, strict=True), 1):
            told = future.result()
            left = (time.perf_counter() - started) / done * (len(missing) - done)
            gap = f", gap {told['gap']:+.2f}: {' '.join(told['functions'])}" if "gap" in told else ""
            sys.stderr.write(
                f"{done}/{len(missing)} {job.title}: val {told['val']:.2f} %{gap}; {told['seconds']:.0f} s; "
                f"about {left / 60:.0f} min left\n"
            )


if __name__ == "__main__":
    main()
