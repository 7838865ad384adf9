"""A tracker whose failures never reach the study: each event is written to the spool, then delivered to the store.

The outbox pattern. Knows a store by the `Backend` protocol only.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from nasact.errors import error_line
from nasact.tracking.backend import Backend
from nasact.tracking.backoff import Backoff
from nasact.tracking.events import (
    ComparisonFinished,
    Event,
    MetricPoint,
    ModelReady,
    StudyFinished,
    StudyStarted,
    TrialFinished,
    TrialStarted,
    now_ms,
    staged_folder,
)
from nasact.tracking.sanitise import param_value, to_floats
from nasact.tracking.spool import Spool
from nasact.tracking.staging import StagingArea
from nasact.tracking.tracker import RenderFigures, RunIds, StudyInfo
from nasact.tracking.trial_log import TrialLog

if TYPE_CHECKING:
    from torch import Tensor, nn

logger = logging.getLogger("nasact.tracking")

P = ParamSpec("P")
R = TypeVar("R")


def warn_on_failure(method: Callable[P, R]) -> Callable[P, R | None]:
    """Turn an exception of `method` into one warning and None: no tracking error is worth losing a training for."""

    @functools.wraps(method)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return method(*args, **kwargs)
        except Exception as error:
            logger.warning("tracking: %s failed and is skipped (%s)", method.__name__, error_line(error, 200))
            return None

    return guarded


class _StoreUnreachable(Exception):
    """The store does not answer at all, unlike a store that rejects one event."""


class OutboxTracker:
    """A `Tracker` that delivers to a `Backend`; its own files are in `directory`/tracking."""

    def __init__(
        self,
        backend: Backend,
        directory: Path | str,
        *,
        retry_after: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`retry_after`: seconds before an unreachable store is contacted again; doubled each time, at most 600."""
        self._backend = backend
        folder = Path(directory).resolve() / "tracking"
        self._staging = StagingArea(folder / "staged")
        self._spool = Spool(folder / "spool.jsonl")
        self._trials = TrialLog(folder)
        self._backoff = Backoff(retry_after, clock)
        self._rejected: set[int] = set()

    @property
    def tracking_uri(self) -> str | None:
        return self._backend.uri

    @property
    def run_ids(self) -> RunIds:
        return self._backend.run_ids

    @property
    def pending_count(self) -> int:
        """Number of events that the store has not confirmed."""
        return len(self._spool)

    @warn_on_failure
    def study_started(self, info: StudyInfo) -> None:
        self._backend.set_study(info)
        self._staging.remove_orphans({staged_folder(event) for _, event in self._spool.pending()})
        tags = {str(name): str(value) for name, value in info.tags.items()}
        self._submit(StudyStarted(yaml=info.yaml, tags=tags, time=now_ms()), force=True)

    @warn_on_failure
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

    @warn_on_failure
    def trial_report(self, number: int, report: Mapping[str, Any]) -> None:
        self._trials.add_report(number, str(report["phase"]), int(report["epoch"]), to_floats(report["metrics"]))

    @warn_on_failure
    def trial_finished(
        self,
        number: int,
        status: str,
        metrics: Mapping[str, float],
        texts: Mapping[str, str],
        figures: RenderFigures | None,
        reason: str | None,
    ) -> None:
        trial = self._trials.get(number)
        time = now_ms()
        event = TrialFinished(
            number=number,
            key=trial.key,
            params=trial.params,
            started=trial.started,
            time=time,
            status=status,
            reason=reason,
            points=(*trial.points.values(), *_final_points(metrics, time)),
            files=self._staging.write(f"trial-{number}", texts, figures),
        )
        self._submit(event)
        self._trials.close(number)

    @warn_on_failure
    def comparison_finished(
        self, metrics: Mapping[str, float], texts: Mapping[str, str], figures: RenderFigures | None
    ) -> None:
        time = now_ms()
        files = self._staging.write("comparison", texts, figures)
        self._submit(ComparisonFinished(points=_final_points(metrics, time), files=files, time=time))

    @warn_on_failure
    def register_model(self, module: nn.Module, example: Tensor, name: str, alias: str = "champion") -> str | None:
        digest = network_digest(module)
        registered = self._find_model(name, alias, digest)
        if registered is not None:
            return registered
        folder = self._staging.new_folder("model")
        try:
            self._backend.save_model(module, example, folder)
        except Exception:
            self._staging.remove(folder.name)
            raise
        return self._submit(
            ModelReady(name=name, alias=alias, digest=digest, files=folder.name, time=now_ms()), force=True
        )

    @warn_on_failure
    def study_finished(self, status: str) -> None:
        self._submit(StudyFinished(status=status, time=now_ms()), force=True)
        if status == "complete":
            self._trials.clear()
        if self._spool.pending():
            logger.warning(
                "tracking: %d events wait in %s; run the same study again to deliver them",
                len(self._spool),
                self._spool.path,
            )

    def _find_model(self, name: str, alias: str, digest: str) -> str | None:
        """Address of the network if it is registered already, because saving it takes seconds; None if unknown."""
        try:
            return self._backend.find_model(name, alias, digest)
        except Exception:
            self._backend.clear_cache()
            return None

    def _submit(self, event: Event, *, force: bool = False) -> str | None:
        """Write the event to the spool, then deliver all pending events; `force`: even during a backoff."""
        try:
            number = self._spool.append(event)
        except OSError as error:
            logger.warning("tracking: an event is kept in memory only (%s)", error_line(error, 200))
            number = self._spool.pending()[-1][0]
        return self._deliver_pending(force=force).get(number)

    def _deliver_pending(self, *, force: bool) -> dict[int, str | None]:
        """Deliver in order until the store is unreachable. An event that it rejects waits for the next `force`."""
        results: dict[int, str | None] = {}
        if not (force or self._backoff.is_due):
            return results
        for number, event in self._spool.pending():
            if number in self._rejected and not force:
                continue
            try:
                results[number] = self._deliver(event)
            except _StoreUnreachable as error:
                self._backoff.record_failure()
                logger.warning(
                    "tracking: the store does not answer, training goes on, %d events wait in %s (%s)",
                    len(self._spool),
                    self._spool.path,
                    error,
                )
                return results
            except Exception as error:
                if number not in self._rejected:
                    kind = type(event).__name__
                    logger.warning(
                        "tracking: the store rejected %s, which is kept and sent again later (%s)",
                        kind,
                        error_line(error, 200),
                    )
                self._rejected.add(number)
            else:
                self._confirm(number, event)
        if self._backoff.failing:
            logger.info("tracking: the store answers again")
        self._backoff.record_success()
        return results

    def _deliver(self, event: Event) -> str | None:
        """Deliver with one retry if the store is reachable: the first attempt may have used stale knowledge of it."""
        if not isinstance(event, StudyStarted | TrialStarted | StudyFinished) and event.files is not None:
            event = replace(event, files=str(self._staging.path(event.files)))
        try:
            return self._attempt(event)
        except Exception as error:
            if not self._backend.is_reachable():
                raise _StoreUnreachable(error_line(error, 200)) from error
            return self._attempt(event)

    def _attempt(self, event: Event) -> str | None:
        try:
            return self._backend.deliver(event)
        except BaseException:
            # Also after Ctrl-C: the store may have created a run whose id was not noted. It must be found, not created
            # again.
            self._backend.clear_cache()
            raise

    def _confirm(self, number: int, event: Event) -> None:
        self._rejected.discard(number)
        try:
            self._spool.confirm(number)
        except OSError as error:
            # The event will be delivered again, which changes nothing.
            logger.warning("tracking: %s could not be written (%s)", self._spool.path, error_line(error, 200))
        folder = staged_folder(event)
        if folder is not None:
            self._staging.remove(folder)


def _final_points(metrics: Mapping[str, float], time: int) -> tuple[MetricPoint, ...]:
    return tuple(MetricPoint(name=name, value=value, step=0, time=time) for name, value in to_floats(metrics).items())


def network_digest(module: nn.Module) -> str:
    """SHA-256 (its first 32 hexadecimal digits) of the names, shapes, dtypes and values of a network's tensors."""
    import torch

    sha256 = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        sha256.update(f"{name}\n".encode())
        if isinstance(value, torch.Tensor):
            sha256.update(f"{tuple(value.shape)} {value.dtype}\n".encode())
            flat = value.detach().cpu().contiguous().reshape(-1)
            sha256.update(flat.view(torch.uint8).numpy().tobytes())
        else:
            sha256.update(repr(value).encode())
    return sha256.hexdigest()[:32]
