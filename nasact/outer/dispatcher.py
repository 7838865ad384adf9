"""Passes every call of an engine on to the user's callbacks and to the tracker. A failing tracker stops no study."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from nasact.errors import NasactError
from nasact.outer.tracking_content import comparison_content, trial_content

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nasact.compare import Comparison
    from nasact.outer.callbacks import Callbacks
    from nasact.results import Report, TrialResult
    from nasact.study import Study
    from nasact.tracking import RunIds, StudyInfo, Tracker

T = TypeVar("T")


class Dispatcher:
    """Callbacks that call `callbacks` and then `tracker`."""

    def __init__(self, study: Study, callbacks: Callbacks, tracker: Tracker) -> None:
        self._study = study
        self._callbacks = callbacks
        self._tracker = tracker
        self._tracker_failed = False
        self._original_functions: Mapping[str, str] = {}

    def set_original_functions(self, original_functions: Mapping[str, str]) -> None:
        """The model's own function at each site, for the plots. Known only after the tracker has started."""
        self._original_functions = original_functions

    # the calls of an engine

    def study_started(self, total: int, *, finished: int = 0, best: tuple[float, int] | None = None) -> None:
        self._callbacks.study_started(total, finished=finished, best=best)

    def trial_started(self, number: int, params: Mapping[str, Any]) -> None:
        self._callbacks.trial_started(number, params)
        self._track(lambda: self._tracker.trial_started(number, self._key(params), params))

    def report(self, number: int, report: Report) -> None:
        self._callbacks.report(number, report)
        plain = {"phase": report.phase, "epoch": report.epoch, "metrics": report.metrics}
        self._track(lambda: self._tracker.trial_report(number, plain))

    def trial_finished(self, number: int, result: TrialResult) -> None:
        self._callbacks.trial_finished(number, result)
        content = trial_content(result, self._original_functions)
        self._track(
            lambda: self._tracker.trial_finished(
                number, result.status, content.metrics, content.texts, content.figures, result.reason
            )
        )

    def compare_progress(self, done: int, total: int, label: str) -> None:
        self._callbacks.compare_progress(done, total, label)

    def message(self, text: str) -> None:
        self._callbacks.message(text)

    # the calls of the study's run, for the tracker only

    def tracking_started(self, info: StudyInfo) -> None:
        self._track(lambda: self._tracker.study_started(info))

    def comparison_finished(self, comparison: Comparison, trial: TrialResult) -> None:
        content = comparison_content(comparison, trial, self._original_functions)
        self._track(lambda: self._tracker.comparison_finished(content.metrics, content.texts, content.figures))

    def register_model(self, module: nn.Module, example: Tensor) -> str | None:
        """Address of the registered network; None if the tracker keeps none."""
        return self._track(lambda: self._tracker.register_model(module, example, self._study.spec.name))

    def tracking_finished(self, status: str) -> None:
        self._track(lambda: self._tracker.study_finished(status))

    def run_ids(self) -> RunIds:
        return self._track(lambda: self._tracker.run_ids) or {"study": None, "trials": {}}

    def _key(self, params: Mapping[str, Any]) -> str:
        """The key of the configuration; empty if the study does not accept these values."""
        try:
            return self._study.fill(params).key()
        except NasactError:
            return ""

    def _track(self, call: Callable[[], T]) -> T | None:
        """The result of a tracker's call; None if it raised, which is reported once.

        The protocol forbids trackers to raise, but a study that ran for a day must not depend on that.
        """
        try:
            return call()
        except Exception as error:
            if not self._tracker_failed:
                self._tracker_failed = True
                self._callbacks.message(f"tracking failed ({type(error).__name__}: {error}); the study goes on")
            return None
