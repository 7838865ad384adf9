"""What a tracker is: somebody who is told how a study goes, and must never stand in its way.

The engine calls these methods in the order of the study; a tracker knows nothing of how trials are made. No method
raises once the tracker is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

if TYPE_CHECKING:
    from torch import Tensor, nn

Figures = Callable[[], Mapping[str, bytes]]
"""Renders a study's plots when the tracker wants them: file name -> PNG bytes."""


@dataclass(frozen=True, kw_only=True)
class StudyInfo:
    """Who a study is: its name, the fingerprint of its tree, the tree as resolved, and what produced it."""

    name: str
    fingerprint: str
    yaml: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Versions, `git` commit, `seed`, `command`: whatever a reader needs to run it again."""


class RunIds(TypedDict):
    """The store's names for what was tracked; `study` is None as long as the store has not heard of it."""

    study: str | None
    trials: dict[int, str]


class Tracker(Protocol):
    """One study's tracker."""

    @property
    def tracking_uri(self) -> str | None:
        """Address of the store, as a user would pass it to --tracking-uri; None: nothing is tracked."""

    @property
    def run_ids(self) -> RunIds: ...

    def study_started(self, info: StudyInfo) -> None:
        """The study begins or continues; leftovers of a killed process are put in order."""

    def trial_started(self, number: int, key: str, params: Mapping[str, object]) -> None:
        """Trial `number` begins or continues; `key` names its configuration."""

    def trial_report(self, number: int, report: Mapping[str, Any]) -> None:
        """`{"phase": "search" | "retrain", "epoch": int, "metrics": {name: number}}`; kept until the trial ends."""

    def trial_finished(
        self,
        number: int,
        status: str,
        metrics: Mapping[str, float],
        texts: Mapping[str, str],
        figures: Figures | None,
        reason: str | None,
    ) -> None:
        """The trial is `complete`, `pruned` or `failed` (then `reason` says why)."""

    def comparison_finished(
        self, metrics: Mapping[str, float], texts: Mapping[str, str], figures: Figures | None
    ) -> None:
        """The derived network was compared with its baselines: numbers, tables by file name, plots."""

    def model(self, module: nn.Module, example: Tensor, name: str, alias: str = "champion") -> str | None:
        """Keep the final network and register it as `name`@`alias`; where it can be loaded from, if anywhere yet."""

    def study_finished(self, status: str) -> None:
        """The study is `complete`, `failed` or `interrupted`; after this no run of it is still running."""
