"""The networks that are derived, compared with the mixtures they come from and with the best single function.

Usage: python benchmarks/derived.py --data DIR [--only CASE ...] [--json FILE]. DIR holds Fashion-MNIST in torchvision's
layout, and CIFAR-10 in the same layout or as cifar10-jpeg.tar (train/ and test/, one folder per class). Every training
is cached under runs/derived: an interrupted run continues with the next training, and `--report-only` trains nothing.

There are two tasks of 10,000 images each; a fifth of the images is held out for validation. A seed decides which
images, and the initial weights. Each function of the bank is trained at all sites, and every case is a whole trial of a
study: search, derive k = 1, retrain from scratch. All networks of a seed have the same images, initial weights and
budget, so they are compared in pairs. The test set measures the trained networks and decides nothing.

A case is one of CASES or the name of a registered strategy, which then runs as in a study that sets nothing else. If
FILE already holds rows of other cases with the same settings, they are kept.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

from cifar10 import cifar10_dataset
from command_line import publish
from derived_cases import ALL_TASKS, CASES, IMAGES, SINGLES, SMOKE, TASKS, Job, Outcome, find_case, spec_of
from derived_results import build_results, keep_other_cases, run_settings
from machine import inspect_machine
from torch import nn

from nasact.bilevel import STRATEGIES
from nasact.compare import single_genotypes
from nasact.files import write_json
from nasact.results import TrialResult
from nasact.study import TrialSpec
from nasact.tasks import Data, Split, load_data
from nasact.training.checkpoint import Checkpoint
from nasact.training.metrics import evaluate
from nasact.training.process import configure_process
from nasact.trial import begin_retrain, derived_model, retrain_epochs, run_trial, trial_key

RUNS = Path("runs/derived")


@lru_cache(maxsize=2)
def load_images(task_name: str, seed: int, data_dir: Path, runs: Path) -> tuple[Data, Any]:
    """Return the images of a task, and its data set as `task.dataset` of a study."""
    task = ALL_TASKS[task_name]
    dataset = cifar10_dataset(data_dir, runs, IMAGES) if task.dataset == "cifar10" else task.dataset
    spec = spec_of(task, seed, {}, dataset).task
    options, split = spec.dataset.options, {"validation": spec.validation, "train_limit": spec.train_limit}
    return load_data(spec.dataset.name, options, seed=seed, data_dir=data_dir, **split), dataset


def run_job(job: Job, data_dir: Path, runs: Path) -> Outcome:
    """Return the accuracies of one training, in per cent; read them from their file if it was done before."""
    cached = job.cached(runs)
    if cached is not None:
        return cached
    configure_process(1)
    data, dataset = load_images(job.task, job.seed, data_dir, runs)
    spec = spec_of(ALL_TASKS[job.task], job.seed, job.case or {}, dataset)
    if job.case is None:
        measured = train_single(spec, data, job.name)
    else:
        measured = train_derived(spec, data, runs / "running" / job.title)
    outcome = {"key": job.key(), **measured}
    write_json(job.path(runs), outcome)
    return outcome


def train_single(spec: TrialSpec, data: Data, function: str) -> Outcome:
    """Train the network with one function at all sites, as a trial retrains its derived network."""
    started = time.process_time()
    state = begin_retrain(spec, data, single_genotypes(spec, data)[function], "retrain")
    for _ in retrain_epochs(spec, state, data.train, "retrain"):
        pass
    seconds = time.process_time() - started
    return {"val": accuracy(state.model, data.val), "test": accuracy(state.model, data.test.open()), "seconds": seconds}


def train_derived(spec: TrialSpec, data: Data, directory: Path) -> Outcome:
    """Run a whole trial, and test the network that it retrained."""
    shutil.rmtree(directory, ignore_errors=True)  # no continued trial: its seconds would be incomplete
    started = time.process_time()
    result, weights = run_with_weights(spec, data, directory)
    seconds = time.process_time() - started
    if result.status != "complete" or result.genotype is None or weights is None:
        raise SystemExit(f"{directory.name}: {result.status}: {result.reason}")
    model = derived_model(spec, data, result.genotype, 0)
    model.load_state_dict(weights)
    metrics = {name: 100 * result.metrics[name] for name in ("search_val_accuracy", "derived_val_accuracy", "gap")}
    if accuracy(model, data.val) != metrics["derived_val_accuracy"]:
        raise SystemExit(f"{directory.name}: the weights in the last checkpoint are not those that the trial measured")
    shutil.rmtree(directory)
    return {
        "mixture": metrics["search_val_accuracy"],
        "val": metrics["derived_val_accuracy"],
        "gap": metrics["gap"],
        "test": accuracy(model, data.test.open()),
        "functions": [gene.functions[0] for gene in result.genotype.sites.values()],
        "entropy": result.metrics["entropy"],
        "seconds": seconds,
    }


def run_with_weights(spec: TrialSpec, data: Data, directory: Path) -> tuple[TrialResult, Mapping[str, Any] | None]:
    """Run the trial; return its result and the weights after its last epoch, which a trial does not return itself."""
    running, weights = run_trial(spec, data, directory=directory), None
    while True:
        try:
            report = next(running)
        except StopIteration as end:
            return end.value, weights
        if report.phase == "retrain" and report.epoch == report.epochs:
            payload = Checkpoint(directory / "checkpoint.pt", trial_key(spec, data)).load()
            weights = None if payload is None else payload["state"]["model"]


def accuracy(model: nn.Module, split: Split) -> float:
    return 100 * evaluate(model, split, place="after training").accuracy


# ---- the command line -------------------------------------------------------------------------------------------


def _case_name(text: str) -> str:
    if text != SINGLES and find_case(text) is None:
        known = ", ".join(f"{name!r}" for name in dict.fromkeys([SINGLES, *CASES, *STRATEGIES.names()]))
        raise argparse.ArgumentTypeError(f"expected a case or a registered strategy ({known}), but got {text!r}")
    return text


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path("data"), metavar="DIR", help="folder of both data sets (data)"
    )
    parser.add_argument("--seeds", type=int, default=5, help="trainings per case and function (default: 5)")
    parser.add_argument("--processes", type=int, default=2, help="parallel trainings, one thread each (default: 2)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="run only these tasks")
    parser.add_argument("--only", nargs="+", type=_case_name, default=[SINGLES, *CASES], metavar="CASE",
                        help="run only these cases or registered strategies, and the single functions that they are "
                        "compared with; FILE keeps its other rows")  # fmt: skip
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help=f"cache of trainings (default: {RUNS})")
    parser.add_argument("--report-only", action="store_true", help="train nothing; report what is cached")
    parser.add_argument("--quick", action="store_true", help="smoke test: digits, two epochs, two seeds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to FILE")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    tasks, seeds = (list(SMOKE), 2) if args.quick else (args.tasks, args.seeds)
    if seeds < 2:
        raise SystemExit(f"--seeds: a spread needs at least 2 seeds, but got {seeds}")
    configure_process(1)
    machine = inspect_machine()
    cases = [name for name in dict.fromkeys([*CASES, *args.only]) if name != SINGLES]
    jobs = list_jobs(tasks, range(seeds), cases)
    chosen = [job for job in jobs if job.case is None or job.name in args.only]
    settings = run_settings(seeds, args.quick)
    # before the trainings: its lines may change the plan
    kept = keep_other_cases(args.json, chosen, settings)
    if not args.report_only:
        run_jobs(chosen, args)
    outcomes = {job: outcome for job in jobs if (outcome := job.cached(args.runs))}
    publish(build_results(outcomes, kept, settings, machine, args.quick), args.json)


def list_jobs(tasks: Sequence[str], seeds: Iterable[int], cases: Sequence[str]) -> list[Job]:
    """All single functions, then all cases, seed by seed."""
    singles = [Job(task, name, seed) for task in tasks for seed in seeds for name in ALL_TASKS[task].functions]
    return singles + [Job(task, name, seed) for seed in seeds for task in tasks for name in cases]


def run_jobs(jobs: Sequence[Job], args: argparse.Namespace) -> None:
    """Run the jobs that are not cached, in parallel processes."""
    missing = [job for job in jobs if job.cached(args.runs) is None]
    if any(job.task == "cifar10" for job in missing):
        cifar10_dataset(args.data, args.runs, IMAGES)  # now, so that two processes do not unpack it at the same time
    started = time.perf_counter()
    with ProcessPoolExecutor(args.processes, multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(run_job, job, args.data, args.runs) for job in missing]
        for done, (job, future) in enumerate(zip(missing, futures, strict=True), 1):
            outcome = future.result()
            remaining = (time.perf_counter() - started) / done * (len(missing) - done)
            gap = f", gap {outcome['gap']:+.2f}: {' '.join(outcome['functions'])}" if "gap" in outcome else ""
            sys.stderr.write(
                f"{done}/{len(missing)} {job.title}: val {outcome['val']:.2f} %{gap}; {outcome['seconds']:.0f} s; "
                f"about {remaining / 60:.0f} min left\n"
            )


if __name__ == "__main__":
    main()
