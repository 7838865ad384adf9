"""Trained networks, optuna_study: in memory, and in one small file each where there is a directory."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from nasact.compare.seed_run import Job, Purpose, SeedRun, splits, train_seed_run
from nasact.compare.variants import VariantPlan, network_identity
from nasact.compare.worker_pool import Workers
from nasact.files import write_atomically, write_json
from nasact.study import TrialSpec
from nasact.study_model import build_study_model
from nasact.supernet import Genotype, find_sites
from nasact.tasks import Data, Split, data_fingerprint

logger = logging.getLogger(__name__)

SCHEMA = 1
Progress = Callable[[int, int, str], None]


class RunCache:
    """Trains, measures and remembers. A network that two variants share is trained once."""

    def __init__(
        self, spec: TrialSpec, data: Data, directory: Path | None, progress: Progress, total: int, workers: int
    ) -> None:
        self.spec, self.data, self.directory = spec, data, directory
        self._workers = Workers(spec, data, workers)
        self._progress, self._total = progress, total
        self._known: dict[str, SeedRun] = {}
        self._splits: dict[Purpose, tuple[Split, Split]] = {}
        report = find_sites(build_study_model(spec, data), partial=True)
        self._original_functions = {site.name: site.function for site in report.sites}
        budget = spec.model_dump(mode="json", include={"seed", "task", "search", "retrain"})
        budget["search"] = {name: budget["search"][name] for name in ("optimiser", "batch_size")}
        self._base = json.dumps(
            [SCHEMA, budget, data_fingerprint(data.train), data_fingerprint(data.val)], sort_keys=True
        )
        self._done: set[tuple[str, int, Purpose]] = set()

    def measure(self, jobs: Sequence[Job]) -> list[SeedRun]:
        """The runs of the jobs, trained only where nobody has yet, side by side where there are workers."""
        missing: dict[str, Job] = {}
        for job in jobs:
            key = self.key(job)
            run = self._known.get(key) or self._load(key)
            if run is not None and not (job.keep and run.diverged is None and not self._weights_kept(run)):
                self._known[key] = run
                self._finished(job)
            elif key not in missing or job.keep:
                missing[key] = job
        for job, run, weights in self._train(list(missing.values())):
            key = self.key(job)
            if weights is not None:
                run = replace(run, weights_sha256=self._save_weights(weights))
            if self.directory is not None:
                write_json(self._path(key), {"schema": SCHEMA, "key": key, "cell": asdict(run)})
            self._known[key] = run
            self._finished(job)
        for job in jobs:  # those whose network another job trained
            self._finished(job)
        return [self._known[self.key(job)] for job in jobs]

    def measure_variants(self, plans: Iterable[VariantPlan]) -> dict[str, list[SeedRun]]:
        """The runs of every plan, one a seed, measured on the test set."""
        jobs = {
            plan.name: [
                Job(genotype, seed, "test", f"{plan.name}, seed {seed}", keep=plan.name == "derived" and seed == 0)
                for seed, genotype in enumerate(plan.genotypes)
            ]
            for plan in plans
        }
        runs = iter(self.measure([job for row in jobs.values() for job in row]))
        return {name: [next(runs) for _ in row] for name, row in jobs.items()}

    def key(self, job: Job) -> str:
        text = json.dumps([self._base, network_identity(job.genotype, self._original_functions), job.seed, job.purpose])
        return hashlib.sha256(text.encode()).hexdigest()

    def model_path(self, genotype: Genotype) -> str | None:
        """The file with the weights of the derived network of the first seed; None where there is none."""
        run = self._known[self.key(Job(genotype, 0, "test", ""))]
        kept = self._weights_path is not None and run.diverged is None and self._weights_kept(run)
        return str(self._weights_path) if kept else None

    def _finished(self, job: Job) -> None:
        place = (job.label, job.seed, job.purpose)
        if place not in self._done:
            self._done.add(place)
            self._progress(len(self._done), self._total, job.label)

    def _train(self, jobs: list[Job]) -> Iterator[tuple[Job, SeedRun, bytes | None]]:
        seconds = 0.0
        for index, job in enumerate(jobs):
            # the first network, trained here, tells what the others would take
            if self._workers.worth_it(len(jobs) - index, seconds):
                yield from self._workers.train(jobs[index:])
                return
            if job.purpose not in self._splits:
                self._splits[job.purpose] = splits(self.data, job.purpose)
            run, weights = train_seed_run(self.spec, self.data, job, *self._splits[job.purpose])
            seconds = run.seconds
            yield job, run, weights

    def close(self) -> None:
        self._workers.close()

    def _path(self, key: str) -> Path:
        return (self.directory or Path()) / "cells" / f"{key[:24]}.json"

    def _load(self, key: str) -> SeedRun | None:
        if self.directory is None or not self._path(key).exists():
            return None
        try:
            document = json.loads(self._path(key).read_text())
            return SeedRun(**document["cell"]) if document["schema"] == SCHEMA and document["key"] == key else None
        except (OSError, ValueError, KeyError, TypeError):
            logger.warning("%s: cannot be read: training this network again", self._path(key))
            return None

    @property
    def _weights_path(self) -> Path | None:
        return None if self.directory is None else self.directory / "model.pt"

    def _save_weights(self, weights: bytes) -> str | None:
        if self._weights_path is None:
            return None
        write_atomically(self._weights_path, weights)
        return hashlib.sha256(weights).hexdigest()

    def _weights_kept(self, run: SeedRun) -> bool:
        """Whether the weights on the disk are those of this run (always, where nothing is to be kept on a disk)."""
        path = self._weights_path
        if path is None:
            return True
        return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == run.weights_sha256
