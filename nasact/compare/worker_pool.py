"""Worker processes that train networks of a comparison in parallel, for the numbers of one process, to the bit."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait

import torch

from nasact.compare.seed_run import Purpose, SeedRun, TrainingJob, splits, train_seed_run
from nasact.errors import StoreError
from nasact.study import TrialSpec
from nasact.tasks import Data, Split
from nasact.training.process import configure_process

MIN_PARALLEL_SECONDS = 20.0
"""Remaining training time of one process up to which starting workers (each imports torch) saves no time."""


def can_be_sent(spec: TrialSpec, data: Data) -> bool:
    """Whether other processes can do this work: data on the CPU that can be pickled (a user's test loader may not)."""
    if data.train.x.device.type != "cpu":
        return False
    try:
        pickle.dumps((spec.to_tree(), data.test))
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True


class WorkerPool:
    """Up to `count` processes for one comparison. They start with the first call of `train` and end with this process.

    A `concurrent.futures` pool has no public way to end a busy worker before Python 3.14, and a `multiprocessing.Pool`
    waits forever for a worker that was killed: so this pool has its own processes.
    """

    def __init__(self, spec: TrialSpec, data: Data, count: int) -> None:
        self._work = (spec, data)
        self._count = count if count > 1 and can_be_sent(spec, data) else 1
        self._workers: list[_Worker] = []

    def are_faster(self, jobs: int, seconds: float) -> bool:
        """Whether workers, whose start takes time, train `jobs` networks of `seconds` each faster than this process."""
        if self._count < 2 or jobs < 2:
            return False
        return bool(self._workers) or jobs * seconds > MIN_PARALLEL_SECONDS

    def train(self, jobs: Sequence[TrainingJob]) -> Iterator[tuple[TrainingJob, SeedRun, bytes | None]]:
        """Each job with its run and, if the job keeps them, the weights; in the order in which the jobs finish.

        Raises what a job raises, and StoreError if a worker died. Exhaust the iterator before the next call.
        """
        while len(self._workers) < min(self._count, len(jobs)):
            self._workers.append(_Worker(*self._work))
        waiting, idle = deque(jobs), list(self._workers)
        busy: dict[_Worker, TrainingJob] = {}
        while waiting or busy:
            while waiting and idle:
                worker, job = idle.pop(), waiting.popleft()
                worker.send(job)
                busy[worker] = job
            ready = wait([worker.connection for worker in busy])
            for worker in [worker for worker in busy if worker.connection in ready]:
                job = busy.pop(worker)
                run, weights = worker.receive()
                idle.append(worker)
                yield job, run, weights

    def close(self) -> None:
        """End the processes at once, whatever they are doing."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(timeout=5)
            worker.connection.close()
        self._workers = []


class _Worker:
    """One process, and this process's end of the pipe between them."""

    def __init__(self, spec: TrialSpec, data: Data) -> None:
        # spawn: a forked child would inherit torch's thread pools in an undefined state
        context = multiprocessing.get_context("spawn")
        self.connection, other_end = context.Pipe()
        arguments = (other_end, os.getpid(), torch.get_num_threads(), spec, data)
        self.process = context.Process(target=_run_jobs, args=arguments, daemon=True)
        self.process.start()
        other_end.close()  # so that `receive` gets an EOFError when the worker dies

    def send(self, job: TrainingJob) -> None:
        try:
            self.connection.send(job)
        except OSError:
            raise _dead_worker() from None

    def receive(self) -> tuple[SeedRun, bytes | None]:
        try:
            outcome = self.connection.recv()
        except (EOFError, OSError):
            raise _dead_worker() from None
        if isinstance(outcome, Exception):
            raise outcome
        run, weights = outcome
        return run, weights


def _dead_worker() -> StoreError:
    return StoreError(
        "a worker process of the comparison died (out of memory?); "
        "run the same command again to continue, with fewer --workers"
    )


def _run_jobs(connection: Connection, parent: int, threads: int, spec: TrialSpec, data: Data) -> None:
    """The main function of a worker: train the jobs that arrive until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; only the parent reacts
    configure_process(threads)
    threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()
    prepared: dict[Purpose, tuple[Split, Split]] = {}
    while True:
        try:
            job: TrainingJob = connection.recv()
        except EOFError:
            return
        try:
            if job.purpose not in prepared:
                prepared[job.purpose] = splits(data, job.purpose)
            outcome: object = train_seed_run(spec, data, job, *prepared[job.purpose])
        except Exception as error:
            error.add_note(f"in a worker process:\n{traceback.format_exc()}")
            outcome = error
        connection.send(outcome)


def _exit_with_parent(parent: int) -> None:
    """End this process after its parent has ended: a killed parent cannot end its workers."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
