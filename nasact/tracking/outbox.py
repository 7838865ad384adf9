"""A tracker that cannot fail: every event is written to the spool first, then delivered to a store behind it.

Knows no store by name: a `Backend` delivers one event, may raise, and must not mind getting the same event twice.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from nasact.errors import error_line
from nasact.tracking.events import (
    ComparisonFinished,
    Event,
    ModelReady,
    Point,
    StudyFinished,
    StudyStarted,
    TrialFinished,
    TrialStarted,
    files_of,
    now,
)
from nasact.tracking.sanitise import clean_name, numbers, param_value
from nasact.tracking.spool import Spool, TrialLog
from nasact.tracking.tracker import Figures, RunIds, StudyInfo

if TYPE_CHECKING:
    from torch import Tensor, nn

logger = logging.getLogger("nasact.tracking")

P = ParamSpec("P")
R = TypeVar("R")


class Backend(Protocol):
    """A store, as the durable tracker sees it."""

    @property
    def uri(self) -> str:
        """Address of the store, as a user would pass it to --tracking-uri."""

    @property
    def run_ids(self) -> RunIds: ...

    def bind(self, info: StudyInfo) -> None:
        """Which study the events belong to. Touches no store."""

    def deliver(self, event: Event) -> str | None:
        """Store one event, also if it, or a part of it, is there already."""

    def alive(self) -> bool:
        """Whether the store answers. Never raises."""

    def forget(self) -> None:
        """What was known of the store may be wrong: look it up again."""

    def find_model(self, name: str, alias: str, digest: str) -> str | None:
        """Where the study's network of this digest can be loaded from, if it is registered as `name`@`alias`."""

    def save_model(self, module: nn.Module, example: Tensor, folder: Path) -> None:
        """Write the network into `folder` as the store wants it."""


def never_fatal(method: Callable[P, R]) -> Callable[P, R | None]:
    """A method whose failure is one warning: no tracking is worth a training."""

    @functools.wraps(method)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return method(*args, **kwargs)
        except Exception as error:
            logger.warning("tracking: %s failed and is left out (%s)", method.__name__, error_line(error, 200))
            return None

    return guarded


class _StoreLost(Exception):
    """The store behind the tracker does not answer, whatever is asked."""


class OutboxTracker:
    """A `Tracker` over a `Backend`; its files are in `directory`/tracking."""

    def __init__(
        self,
        backend: Backend,
        directory: Path | str,
        *,
        retry_after: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A store that failed is left alone for `retry_after` seconds, then twice as long, up to ten minutes."""
        self._backend = backend
        self._folder = Path(directory).resolve() / "tracking"
        self._staged = self._folder / "staged"
        self._spool = Spool(self._folder / "spool.jsonl")
        self._trials = TrialLog(self._folder)
        self._retry_after = retry_after
        self._clock = clock
        self._wait = 0.0
        self._retry_at = float("-inf")
        self._set_aside: set[int] = set()

    @property
    def tracking_uri(self) -> str | None:
        return self._backend.uri

    @property
    def run_ids(self) -> RunIds:
        return self._backend.run_ids

    @property
    def waiting(self) -> int:
        """How many events the store has not confirmed."""
        return len(self._spool)

    @never_fatal
    def study_started(self, info: StudyInfo) -> None:
        self._backend.bind(info)
        self._sweep()
        tags = {str(name): str(value) for name, value in info.tags.items()}
        self._submit(StudyStarted(yaml=info.yaml, tags=tags, time=now()), force=True)

    @never_fatal
    def trial_started(self, number: int, key: str, params: Mapping[str, object]) -> None:
        values = {str(name): param_value(value) for name, value in params.items()}
        try:
            trial = self._trials.start(number, key, values)
        except OSError as error:
            logger.warning(
                "tracking: the reports of trial %d are kept in memory only (%s)",
                number,
                error_line(error, 200),
            )
            trial = self._trials.get(number)
        self._submit(TrialStarted(number=number, key=key, params=values, time=trial.started))

    @never_fatal
    def trial_report(self, number: int, report: Mapping[str, Any]) -> None:
        self._trials.report(number, str(report["phase"]), int(report["epoch"]), numbers(report["metrics"]))

    @never_fatal
    def trial_finished(
        self,
        number: int,
        status: str,
        metrics: Mapping[str, float],
        texts: Mapping[str, str],
        figures: Figures | None,
        reason: str | None,
    ) -> None:
        trial = self._trials.get(number)
        time = now()
        event = TrialFinished(
            number=number,
            key=trial.key,
            params=trial.params,
            started=trial.started,
            time=time,
            status=status,
            reason=reason,
            points=(*trial.points.values(), *_final_points(metrics, time)),
            files=self._stage(f"trial-{number}", texts, figures),
        )
        self._submit(event)
        self._trials.close(number)

    @never_fatal
    def comparison_finished(
        self, metrics: Mapping[str, float], texts: Mapping[str, str], figures: Figures | None
    ) -> None:
        time = now()
        files = self._stage("comparison", texts, figures)
        self._submit(ComparisonFinished(points=_final_points(metrics, time), files=files, time=time))

    @never_fatal
    def model(self, module: nn.Module, example: Tensor, name: str, alias: str = "champion") -> str | None:
        there = self._find_model(name, alias, digest(module))
        if there is not None:
            return there
        folder = self._new_folder("model")
        try:
            self._backend.save_model(module, example, folder)
        except Exception:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return self._submit(
            ModelReady(name=name, alias=alias, digest=digest(module), files=folder.name, time=now()), force=True
        )

    @never_fatal
    def study_finished(self, status: str) -> None:
        self._submit(StudyFinished(status=status, time=now()), force=True)
        if status == "complete":
            self._trials.clear()
        if self._spool.pending():
            logger.warning(
                "tracking: %d events wait in %s; running the same study again delivers them",
                len(self._spool),
                self._spool.path,
            )

    def _find_model(self, name: str, alias: str, digest: str) -> str | None:
        """Saving a model takes seconds: not for one that the store holds. A store that is down has nothing."""
        try:
            return self._backend.find_model(name, alias, digest)
        except Exception:
            self._backend.forget()
            return None

    def _submit(self, event: Event, *, force: bool = False) -> str | None:
        """Keep the event, then deliver everything that waits; `force`: even if the store failed just now."""
        try:
            number = self._spool.append(event)
        except OSError as error:
            logger.warning("tracking: an event is kept in memory only (%s)", error_line(error, 200))
            number = self._spool.pending()[-1][0]
        return self._deliver_pending(force=force).get(number)

    def _deliver_pending(self, *, force: bool) -> dict[int, str | None]:
        """Deliver in order. Where the store is down, stop; where it only rejects one event, set that one aside."""
        results: dict[int, str | None] = {}
        if not force and self._clock() < self._retry_at:
            return results
        for number, event in self._spool.pending():
            if number in self._set_aside and not force:
                continue
            try:
                results[number] = self._deliver(event)
            except _StoreLost as error:
                self._store_lost(error)
                return results
            except Exception as error:
                if number not in self._set_aside:
                    logger.warning("tracking: %s is kept for later (%s)", type(event).__name__, error_line(error, 200))
                self._set_aside.add(number)
            else:
                self._confirm(number, event)
        self._store_answers()
        return results

    def _deliver(self, event: Event) -> str | None:
        """Once, and once more where the store answers after all: its runs may only have to be looked up again."""
        # Events name their folder without its place, so that a study's directory may be moved while they wait.
        if not isinstance(event, StudyStarted | TrialStarted | StudyFinished) and event.files is not None:
            event = replace(event, files=str(self._staged / event.files))
        try:
            return self._attempt(event)
        except Exception as error:
            if not self._backend.alive():
                raise _StoreLost(error_line(error, 200)) from error
            return self._attempt(event)

    def _attempt(self, event: Event) -> str | None:
        try:
            return self._backend.deliver(event)
        except BaseException:
            # Also after Ctrl-C: a run that was made, but not noted, must be found and not made again.
            self._backend.forget()
            raise

    def _confirm(self, number: int, event: Event) -> None:
        self._set_aside.discard(number)
        try:
            self._spool.done(number)
        except OSError as error:
            # The event will be delivered again, which changes nothing.
            logger.warning("tracking: %s could not be written (%s)", self._spool.path, error_line(error, 200))
        files = files_of(event)
        if files is not None:
            shutil.rmtree(self._staged / files, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove staged folders that a killed process left before it could tell of them."""
        awaited = {files_of(event) for _, event in self._spool.pending()}
        for folder in self._staged.glob("*"):
            if folder.name not in awaited:
                shutil.rmtree(folder, ignore_errors=True)

    def _store_lost(self, error: Exception) -> None:
        self._wait = min(max(2 * self._wait, self._retry_after), 600.0)
        self._retry_at = self._clock() + self._wait
        logger.warning(
            "tracking: the store does not answer, training goes on, %d events wait in %s (%s)",
            len(self._spool),
            self._spool.path,
            error,
        )

    def _store_answers(self) -> None:
        if self._wait:
            logger.info("tracking: the store answers again")
        self._wait = 0.0
        self._retry_at = float("-inf")

    def _new_folder(self, name: str) -> Path:
        self._staged.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._staged))

    def _stage(self, name: str, texts: Mapping[str, str], figures: Figures | None) -> str | None:
        """Write artifacts where they wait for the store; what cannot be rendered or written is left out."""
        contents = {clean_name(file): text.encode() for file, text in texts.items()}
        try:
            rendered = figures() if figures is not None else {}
            contents |= {_png(clean_name(file)): image for file, image in rendered.items()}
        except Exception as error:
            logger.warning("tracking: the figures of %s are left out (%s)", name, error_line(error, 200))
        if not contents:
            return None
        try:
            folder = self._new_folder(name)
            for file, content in contents.items():
                path = folder / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        except OSError as error:
            logger.warning("tracking: the files of %s are left out (%s)", name, error_line(error, 200))
            return None
        return folder.name


def _png(file: str) -> str:
    return file if "." in file.rsplit("/", 1)[-1] else f"{file}.png"


def _final_points(metrics: Mapping[str, float], time: int) -> tuple[Point, ...]:
    return tuple(Point(name=name, value=value, step=0, time=time) for name, value in numbers(metrics).items())


def digest(module: nn.Module) -> str:
    """A fingerprint of a network's tensors and their names."""
    import torch

    found = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        found.update(f"{name}\n".encode())
        if isinstance(value, torch.Tensor):
            found.update(f"{tuple(value.shape)} {value.dtype}\n".encode())
            flat = value.detach().cpu().contiguous().reshape(-1)
            found.update(flat.view(torch.uint8).numpy().tobytes())
        else:
            found.update(repr(value).encode())
    return found.hexdigest()[:32]
