"""Trained networks of a comparison, stored in memory and, if there is a directory, in one small file each."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from nasact.compare.seed_run import Purpose, SeedRun, TrainingJob, splits, train_seed_run
from nasact.compare.variants import VariantSpec, network_identity
from nasact.compare.worker_pool import WorkerPool
from nasact.files import write_atomically, write_json
from nasact.study import TrialSpec
from nasact.study_model import build_study_model
from nasact.supernet import Genotype, find_sites
from nasact.tasks import Data, Split, data_fingerprint

logger = logging.getLogger(__name__)

SCHEMA = 1
Progress = Callable[[int, int, str], None]
"""Called as progress(done, total, label) after each network."""


class RunCache:
    """Trains and measures networks. A network that is stored, or that two variants share, is not trained again."""

    def __init__(
        self, spec: TrialSpec, data: Data, directory: Path | None, progress: Progress, total: int, workers: int
    ) -> None:
        self.spec, self.data, self.directory = spec, data, directory
        self._workers = WorkerPool(spec, data, workers)
        self._progress, self._total = progress, total
        self._runs: dict[str, SeedRun] = {}
        self._splits: dict[Purpose, tuple[Split, Split]] = {}
        report = find_sites(build_study_model(spec, data), partial=True)
        self._original_functions = {site.name: site.function for site in (*report.sites, *report.gates)}
        budget = spec.model_dump(mode="json", include={"seed", "task", "search", "retrain"})
        budget["search"] = {name: budget["search"][name] for name in ("optimiser", "batch_size")}
        self._base = json.dumps(
            [SCHEMA, budget, data_fingerprint(data.train), data_fingerprint(data.val)], sort_keys=True
        )
        self._reported: set[tuple[str, int, Purpose]] = set()

    def measure(self, jobs: Sequence[TrainingJob]) -> list[SeedRun]:
        """The runs of the jobs, in their order. Trains the networks that are not stored yet, with workers if faster."""
        missing: dict[str, TrainingJob] = {}
        for job in jobs:
            key = self.key(job)
            run = self._runs.get(key) or self._load(key)
            if run is not None and not (job.keep_weights and run.diverged is None and not self._weights_stored(run)):
                self._runs[key] = run
                self._report(job)
            elif key not in missing or job.keep_weights:
                missing[key] = job
        for job, run, weights in self._train(list(missing.values())):
            key = self.key(job)
            if weights is not None:
                run = replace(run, weights_sha256=self._save_weights(weights))
            if self.directory is not None:
                write_json(self._path(key), {"schema": SCHEMA, "key": key, "cell": asdict(run)})
            self._runs[key] = run
            self._report(job)
        for job in jobs:  # also those whose network another job trained
            self._report(job)
        return [self._runs[self.key(job)] for job in jobs]

    def measure_variants(self, variants: Iterable[VariantSpec]) -> dict[str, list[SeedRun]]:
        """By variant: its runs on the test set, one per seed. Stores the weights of the derived network of seed 0."""
        jobs = {
            variant.name: [
                TrainingJob(
                    genotype,
                    seed,
                    "test",
                    f"{variant.name}, seed {seed}",
                    keep_weights=variant.name == "derived" and seed == 0,
                )
                for seed, genotype in enumerate(variant.genotypes)
            ]
            for variant in variants
        }
        runs = iter(self.measure([job for row in jobs.values() for job in row]))
        return {name: [next(runs) for _ in row] for name, row in jobs.items()}

    def key(self, job: TrainingJob) -> str:
        """A digest of everything that the job's run is a function of."""
        text = json.dumps([self._base, network_identity(job.genotype, self._original_functions), job.seed, job.purpose])
        return hashlib.sha256(text.encode()).hexdigest()

    def model_path(self, genotype: Genotype) -> str | None:
        """The file with the weights of the derived network of seed 0; None without a directory, or if it diverged."""
        run = self._runs[self.key(TrainingJob(genotype, 0, "test", ""))]
        stored = self._weights_path is not None and run.diverged is None and self._weights_stored(run)
        return str(self._weights_path) if stored else None

    def _report(self, job: TrainingJob) -> None:
        """Call `progress` once per job."""
        row = (job.label, job.seed, job.purpose)
        if row not in self._reported:
            self._reported.add(row)
            self._progress(len(self._reported), self._total, job.label)

    def _train(self, jobs: list[TrainingJob]) -> Iterator[tuple[TrainingJob, SeedRun, bytes | None]]:
        seconds = 0.0
        for index, job in enumerate(jobs):
            # the first network is trained in this process, to measure how long the others take
            if self._workers.are_faster(len(jobs) - index, seconds):
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
            logger.warning("%s: cannot be read; training this network again", self._path(key))
            return None

    @property
    def _weights_path(self) -> Path | None:
        return None if self.directory is None else self.directory / "model.pt"

    def _save_weights(self, weights: bytes) -> str | None:
        if self._weights_path is None:
            return None
        write_atomically(self._weights_path, weights)
        return hashlib.sha256(weights).hexdigest()

    def _weights_stored(self, run: SeedRun) -> bool:
        """Whether the weights on the disk are those of this run; True if there is no directory to store them in."""
        path = self._weights_path
        if path is None:
            return True
        return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == run.weights_sha256
