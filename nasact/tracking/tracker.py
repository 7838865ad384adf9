"""The protocol of a tracker: it records what happens in a study and never interrupts it.

The study calls the methods in the order in which things happen. A tracker does not know how trials are run. No method
raises once the tracker is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

if TYPE_CHECKING:
    from torch import Tensor, nn

RenderFigures = Callable[[], Mapping[str, bytes]]
"""Renders plots when the tracker needs them: file name -> PNG bytes."""


@dataclass(frozen=True, kw_only=True)
class StudyInfo:
    """What identifies a study: its name, the fingerprint of its tree, the resolved tree as YAML, and its origin."""

    name: str
    fingerprint: str
    yaml: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    """What a reader needs to run the study again: versions, `git` commit, `seed`, `command`."""


class RunIds(TypedDict):
    """Ids of the runs in the store: of the study (None: not stored yet), and of each trial by its number."""

    study: str | None
    trials: dict[int, str]


class Tracker(Protocol):
    """The tracker of one study."""

    @property
    def tracking_uri(self) -> str | None:
        """Address of the store, as a user would pass it to --tracking-uri; None: nothing is tracked."""

    @property
    def run_ids(self) -> RunIds: ...

    def study_started(self, info: StudyInfo) -> None:
        """The study begins or continues; runs that a killed process left open are ended."""

    def trial_started(self, number: int, key: str, params: Mapping[str, object]) -> None:
        """Trial `number` begins or continues; `key` identifies its configuration."""

    def trial_report(self, number: int, report: Mapping[str, Any]) -> None:
        """One epoch: `{"phase": "search" | "retrain", "epoch": int, "metrics": {name: number}}`.

        Kept until the trial ends.
        """

    def trial_finished(
        self,
        number: int,
        status: str,
        metrics: Mapping[str, float],
        texts: Mapping[str, str],
        figures: RenderFigures | None,
        reason: str | None,
    ) -> None:
        """The trial is `complete`, `pruned` or `failed` (then `reason` says why); `texts` by file name."""

    def comparison_finished(
        self, metrics: Mapping[str, float], texts: Mapping[str, str], figures: RenderFigures | None
    ) -> None:
        """The derived network was compared with its baselines: metrics, `texts` by file name, plots."""

    def register_model(self, module: nn.Module, example: Tensor, name: str, alias: str = "champion") -> str | None:
        """Store the final network and register it as `name`@`alias`. Its address; None if it is not stored (yet).

        `example` (N, ...): a batch of inputs, N >= 1.
        """

    def study_finished(self, status: str) -> None:
        """The study is `complete`, `failed` or `interrupted`; after this, none of its runs is still running."""
