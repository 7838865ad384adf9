"""What an engine tells the outside while it works. A progress view and a tracker listen; neither is known here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from nasact.trial import Report, TrialResult


class Callbacks(Protocol):
    """Called in this order: study_started; a trial: trial_started, report ..., trial_finished; then the comparison."""

    def study_started(self, total: int, *, finished: int = 0, best: tuple[float, int] | None = None) -> None:
        """`total` trials are planned, `finished` of them done before; `best` is (value, number) among those."""

    def trial_started(self, number: int, params: Mapping[str, Any]) -> None: ...

    def report(self, number: int, report: Report) -> None: ...

    def trial_finished(self, number: int, result: TrialResult) -> None: ...

    def compare_progress(self, done: int, total: int, label: str) -> None: ...

    def message(self, text: str) -> None:
        """One line that a person should see; nothing follows from it."""


class NullCallbacks:
    """Hears everything, says nothing."""

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
