"""Joins the two who listen to a study: the view of the person at the screen, and the tracker. Neither can stop it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from nasact.errors import NasactError
from nasact.outer.figures import comparison_figures, trial_figures

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nasact.compare import Comparison
    from nasact.outer.callbacks import Callbacks
    from nasact.study import Study
    from nasact.tracking import RunIds, StudyInfo, Tracker
    from nasact.trial import Report, TrialResult

T = TypeVar("T")


class Listener:
    """Callbacks that pass everything on to `events`, and to `tracker` what it wants to know."""

    def __init__(self, study: Study, events: Callbacks, tracker: Tracker) -> None:
        self._study = study
        self._events = events
        self._tracker = tracker
        self._params: dict[int, Mapping[str, Any]] = {}
        self._told = False
        self.original_functions: Mapping[str, str] = {}
        """The model's own function at each site, once it is known."""

    # what an engine calls

    def study_started(self, total: int, *, finished: int = 0, best: tuple[float, int] | None = None) -> None:
        self._events.study_started(total, finished=finished, best=best)

    def trial_started(self, number: int, params: Mapping[str, Any]) -> None:
        self._events.trial_started(number, params)
        self._params[number] = params
        self._track(lambda: self._tracker.trial_started(number, self._key(params), params))

    def report(self, number: int, report: Report) -> None:
        self._events.report(number, report)
        told = {"phase": report.phase, "epoch": report.epoch, "metrics": report.metrics}
        self._track(lambda: self._tracker.trial_report(number, told))

    def trial_finished(self, number: int, result: TrialResult) -> None:
        self._events.trial_finished(number, result)
        texts = {} if result.genotype is None else {"genotype.json": result.genotype.to_json()}
        params = self._params.pop(number, None)
        figures = None
        if params is not None and result.weights_over_time:
            figures = partial(trial_figures, result, self.original_functions)
        self._track(
            lambda: self._tracker.trial_finished(number, result.status, result.metrics, texts, figures, result.reason)
        )

    def compare_progress(self, done: int, total: int, label: str) -> None:
        self._events.compare_progress(done, total, label)

    def message(self, text: str) -> None:
        self._events.message(text)

    # what only the tracker hears

    def tracking_started(self, info: StudyInfo) -> None:
        self._track(lambda: self._tracker.study_started(info))

    def comparison_finished(
        self, comparison: Comparison, metrics: Mapping[str, float], texts: Mapping[str, str]
    ) -> None:
        figures = partial(comparison_figures, comparison, self.original_functions)
        self._track(lambda: self._tracker.comparison_finished(metrics, texts, figures))

    def model(self, module: nn.Module, example: Tensor) -> str | None:
        return self._track(lambda: self._tracker.model(module, example, self._study.spec.name))

    def tracking_finished(self, status: str) -> None:
        self._track(lambda: self._tracker.study_finished(status))

    def run_ids(self) -> RunIds:
        return self._track(lambda: self._tracker.run_ids) or {"study": None, "trials": {}}

    def _key(self, params: Mapping[str, Any]) -> str:
        try:
            return self._study.fill(params).key()
        except NasactError:
            return ""

    def _track(self, call: Callable[[], T]) -> T | None:
        """Trackers promise not to raise; a study that ran for a day does not rely on it."""
        try:
            return call()
        except Exception as error:
            if not self._told:
                self._told = True
                self._events.message(f"tracking failed ({type(error).__name__}: {error}); the study goes on")
            return None
