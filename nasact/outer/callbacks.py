"""The calls that an engine makes while it works. Progress views and trackers receive them; neither is known here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from nasact.results import Report, TrialResult


class Callbacks(Protocol):
    """Called in this order: study_started; for each trial trial_started, report (once per epoch), trial_finished;
    compare_progress (once per network of the comparison). `message` may come at any time."""

    def study_started(self, total: int, *, finished: int = 0, best: tuple[float, int] | None = None) -> None:
        """`total` trials are planned; `finished` of them ended in an earlier run, with `best` as (value, number)."""

    def trial_started(self, number: int, params: Mapping[str, Any]) -> None: ...

    def report(self, number: int, report: Report) -> None: ...

    def trial_finished(self, number: int, result: TrialResult) -> None: ...

    def compare_progress(self, done: int, total: int, label: str) -> None: ...

    def message(self, text: str) -> None:
        """One line for the user. It never changes what the study computes."""


class NullCallbacks:
    """Ignores every call."""

    def study_started(self, total: int, *, finished: int = 0, best: tuple[float, int] | None = None) -> None:
        pass

    def trial_started(self, number: int, params: Mapping[str, Any]) -> None:
        pass

    def report(self, number: int, report: Report) -> None:
        pass

    def trial_finished(self, number: int, result: TrialResult) -> None:
        pass

    def compare_progress(self, done: int, total: int, label: str) -> None:
        pass

    def message(self, text: str) -> None:
        pass
