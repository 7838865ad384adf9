"""Worker processes that train networks of a comparison side by side, for the numbers of one process, to the bit."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import torch

from nasact.compare.seed_run import Job, Purpose, SeedRun, splits, train_seed_run
from nasact.errors import StoreError
from nasact.study import TrialSpec
from nasact.tasks import Data, Split
from nasact.training.process import configure_process

WORTH_SECONDS = 20.0
"""Work of one process below which starting others (each imports torch) is no gain."""

# What a worker process works on: set once by its initialiser, empty everywhere else.
_work: dict[str, tuple[TrialSpec, Data]] = {}
_splits: dict[Purpose, tuple[Split, Split]] = {}


def can_be_sent(spec: TrialSpec, data: Data) -> bool:
    """Whether this work can go to other processes: on the CPU, and picklable (a user's own test loader may not be)."""
    if data.train.x.device.type != "cpu":
        return False
    try:
        pickle.dumps((spec.to_tree(), data.test))
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True


class Workers:
    """Up to `count` processes for one comparison, started when first asked and ended with this process, always."""

    def __init__(self, spec: TrialSpec, data: Data, count: int) -> None:
        self._work = (spec, data)
        self._count = count if count > 1 and can_be_sent(spec, data) else 1
        self._pool: ProcessPoolExecutor | None = None

    def worth_it(self, jobs: int, seconds: float) -> bool:
        """Whether `jobs` networks of `seconds` each are sooner done by the workers, which take a while to start."""
        if self._count < 2 or jobs < 2:
            return False
        return self._pool is not None or jobs * seconds > WORTH_SECONDS

    def train(self, jobs: Sequence[Job]) -> Generator[tuple[Job, SeedRun, bytes | None], None, None]:
        """Every job with its run (and state), in the order in which they finish."""
        if self._pool is None:
            # spawn: a forked child would inherit torch's thread pools in whatever state they are
            self._pool = ProcessPoolExecutor(
                max_workers=self._count,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_begin,
                initargs=(os.getpid(), torch.get_num_threads(), *self._work),
            )
        try:
            futures = {self._pool.submit(_train, job): job for job in jobs}
            for future in as_completed(futures):
                run, weights = future.result()
                yield futures[future], run, weights
        except BrokenProcessPool:
            raise StoreError(
                f"a worker process died while training {len(jobs)} networks (out of memory?); "
                "run the same command again to continue, with fewer --workers"
            ) from None

    def close(self) -> None:
        """End the processes at once, whatever they are doing."""
        if self._pool is None:
            return
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            with contextlib.suppress(OSError):
                process.terminate()
        for process in processes:
            process.join(timeout=5)
        self._pool = None


def _begin(parent: int, threads: int, spec: TrialSpec, data: Data) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    configure_process(threads)
    _work["work"] = (spec, data)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: a killed parent cannot tell its workers."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _train(job: Job) -> tuple[SeedRun, bytes | None]:
    spec, data = _work["work"]
    if job.purpose not in _splits:
        _splits[job.purpose] = splits(data, job.purpose)
    return train_seed_run(spec, data, job, *_splits[job.purpose])
