"""Live progress of a study on stderr: running trials, accuracy of the best trial, estimated time to the end.

Receives the callbacks of an engine; never writes to stdout.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from nasact.report.number_text import clock_text, duration_text, is_number, percent_text, points_text
from nasact.report.trials_table import parameter_texts
from nasact.trial_status import TrialScore, best_trial

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

Mode = Literal["auto", "live", "plain", "silent"]

HEARTBEAT = 60.0
"""Plain output prints a line after this many seconds without one."""

_EPOCH_METRICS = {"train_loss": "loss", "val_accuracy": "val", "entropy": "entropy"}


class ReportLike(Protocol):
    @property
    def phase(self) -> str: ...
    @property
    def epoch(self) -> int: ...
    @property
    def epochs(self) -> int: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...


class ResultLike(Protocol):
    @property
    def status(self) -> str: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...


class ProgressView:
    """Bars on a terminal (`live`), else one line per trial (`plain`), or nothing (`silent`). A context manager."""

    def __init__(
        self, *, mode: Mode = "auto", console: Console | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        from rich.console import Console

        self.console = console or Console(stderr=True, highlight=False)
        self.mode = ("live" if self.console.is_terminal else "plain") if mode == "auto" else mode
        self._now = now
        self._bars = _Bars(self.console) if self.mode == "live" else None
        self._total = 0
        self._finished = 0
        self._best: tuple[float, int] | None = None
        self._started: dict[int, float] = {}
        self._fractions: dict[int, float] = {}
        self._seconds: list[float] = []
        self._last_line = now()
        self._compare_started: tuple[float, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the bars from the terminal; printed lines stay."""
        if self._bars:
            self._bars.stop()

    def study_started(self, total: int, *, finished: int = 0, best: tuple[float, int] | None = None) -> None:
        """`total`: planned trials; `finished`: those of an earlier run; `best`: (accuracy, number) among them."""
        self._total, self._finished, self._best = total, finished, best
        self._last_line = self._now()
        self._refresh()

    def trial_started(self, number: int, params: Mapping[str, Any]) -> None:
        # Trials are numbered from 0: the first number of a continued study is the count of those finished before.
        self._finished = max(self._finished, number - len(self._started))
        self._started[number] = self._now()
        self._fractions[number] = 0.0
        if self._bars:
            self._bars.trial(number, 0.0, parameter_texts([params])[0])
            self._refresh()

    def report(self, number: int, report: ReportLike) -> None:
        phase_fraction = report.epoch / max(1, report.epochs)
        # Search and retraining count half each, because their relative durations are not known in advance.
        self._fractions[number] = phase_fraction / 2 if report.phase == "search" else 0.5 + phase_fraction / 2
        status = f"{report.phase} {report.epoch}/{report.epochs}"
        if self._bars:
            self._bars.trial(number, self._fractions[number], ", ".join([status, *metric_texts(report.metrics)]))
            self._refresh()
        elif self._now() - self._last_line >= HEARTBEAT:
            details = ", ".join([status, *metric_texts(report.metrics)])
            self._print_line(f"trial {number}: {details}{_left_text(self.eta())}")

    def trial_finished(self, number: int, result: ResultLike) -> None:
        seconds = self._now() - self._started.pop(number, self._now())
        self._fractions.pop(number, None)
        self._seconds.append(seconds)
        self._finished += 1
        accuracy = result.metrics.get("derived_val_accuracy")
        scores = [TrialScore(number, result.status, accuracy if is_number(accuracy) else None)]
        if self._best is not None:
            scores.append(TrialScore(self._best[1], "complete", self._best[0]))
        best = best_trial(scores)
        self._best = None if best is None or best.value is None else (best.value, best.number)
        if self._bars:
            self._bars.remove_trial(number)
            self._refresh()
        if self._bars is None or result.status == "failed":
            outcome = outcome_text(result)
            outcome = f": {outcome}" if outcome else ""
            self._print_line(f"trial {number} {result.status} in {duration_text(seconds)}{outcome}{self._study_text()}")

    def compare_progress(self, done: int, total: int, label: str) -> None:
        """`done` of `total` networks of the comparison are trained; `label` names the current or last one."""
        if self._compare_started is None:
            self._compare_started = (self._now(), done)
            self._print_line(f"comparing: {total} networks, each trained from scratch", plain_only=True)
        start, done_before = self._compare_started
        per_network = (self._now() - start) / (done - done_before) if done > done_before else None
        eta = None if per_network is None else per_network * (total - done)
        if self._bars:
            self._bars.compare(done, total, label, eta)
        elif done == total or self._now() - self._last_line >= HEARTBEAT:
            details = f" ({label}){_left_text(eta)}" if done < total else ""
            self._print_line(f"compared {done}/{total}{details}")

    def message(self, text: str) -> None:
        self._print_line(text)

    def eta(self) -> float | None:
        """Estimated seconds until the last trial ends, from the durations so far; None as long as there are none."""
        running = sum(self._fractions.values())
        if self._seconds:
            return max(0.0, self._total - self._finished - running) * sum(self._seconds) / len(self._seconds)
        if running < 0.02 or not self._started:
            return None
        elapsed = max(self._now() - started for started in self._started.values())
        return elapsed / running * (self._total - self._finished - running)

    def _best_text(self) -> str:
        return f"best {percent_text(self._best[0])} % (trial {self._best[1]})" if self._best else ""

    def _study_text(self) -> str:
        best = f"; {self._best_text()}" if self._best else ""
        return f"{best}; {self._finished}/{self._total} trials{_left_text(self.eta())}"

    def _print_line(self, text: str, *, plain_only: bool = False) -> None:
        if self.mode == "silent" or (plain_only and self._bars):
            return
        from rich.text import Text

        self._last_line = self._now()
        self.console.print(Text(text), soft_wrap=True)

    def _refresh(self) -> None:
        if self._bars:
            running = sum(self._fractions.values())
            self._bars.study(self._finished, running, self._total, self._best_text(), self.eta())


def _left_text(eta: float | None) -> str:
    return f", about {duration_text(eta)} left" if eta else ""


def metric_texts(metrics: Mapping[str, float]) -> list[str]:
    """The main metrics of an epoch: accuracies in percent, others with three significant figures."""
    return [
        f"{short} {100 * metrics[name]:.1f} %" if name.endswith("accuracy") else f"{short} {metrics[name]:.3g}"
        for name, short in _EPOCH_METRICS.items()
        if is_number(metrics.get(name))
    ]


def outcome_text(result: ResultLike) -> str:
    """`derived 97.10 %, mixture 97.50 %, gap +0.40`, or the reason of a failure."""
    if result.status == "failed":
        return result.reason or "for an unknown reason"
    names = {"derived_val_accuracy": "derived", "search_val_accuracy": "mixture"}
    metrics = result.metrics
    parts = [f"{text} {percent_text(metrics[name])} %" for name, text in names.items() if is_number(metrics.get(name))]
    if is_number(metrics.get("gap")):
        parts.append(f"gap {points_text(metrics['gap'])}")
    if is_number(metrics.get("collapse_epoch")):
        back = metrics.get("rolled_back_to")
        rollback = f", rolled back to {back:.0f}" if is_number(back) else ""
        parts.append(f"collapsed at epoch {metrics['collapse_epoch']:.0f}{rollback}")
    return ", ".join(parts)


class _Bars:
    """The bars, by rich: one for the study, one per running trial, one for the comparison."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        self._progress: Progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[count]}", markup=False, justify="right"),
            TextColumn(
                "{task.fields[text]}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
            ),
            TextColumn("{task.fields[left]}", markup=False, justify="right"),
            console=console,
            transient=True,
            expand=True,
            refresh_per_second=4,
        )
        self._ids: dict[str, TaskID] = {}

    def _show(
        self,
        key: str,
        name: str,
        *,
        total: float,
        done: float,
        count: str = "",
        text: str = "",
        eta: float | None = None,
    ) -> None:
        left = f"{clock_text(eta)} left" if eta else ""
        if not self._ids:
            self._progress.start()
        if key not in self._ids:
            self._ids[key] = self._progress.add_task(name, total=total, count=count, text=text, left=left)
        self._progress.update(self._ids[key], total=total, completed=done, count=count, text=text, left=left)

    def study(self, finished: int, running: float, total: int, text: str, eta: float | None) -> None:
        self._show(
            "study",
            "trials",
            total=total,
            done=finished + running,
            count=f"{finished}/{total}",
            text=text,
            eta=eta,
        )

    def trial(self, number: int, fraction: float, text: str) -> None:
        self._show(f"trial {number}", f"trial {number}", total=1.0, done=fraction, text=text)

    def compare(self, done: int, total: int, label: str, eta: float | None) -> None:
        self._show("compare", "compare", total=total, done=done, count=f"{done}/{total}", text=label, eta=eta)

    def remove_trial(self, number: int) -> None:
        task = self._ids.pop(f"trial {number}", None)
        if task is not None:
            self._progress.remove_task(task)

    def stop(self) -> None:
        if self._ids:
            self._progress.stop()
