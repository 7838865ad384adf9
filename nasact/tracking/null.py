"""The tracker of `--no-tracking`: it ignores every call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nasact.tracking.tracker import RenderFigures, RunIds, StudyInfo

if TYPE_CHECKING:
    from torch import Tensor, nn


class NullTracker:
    """Tracks nothing; figures are never rendered."""

    @property
    def tracking_uri(self) -> str | None:
        return None

    @property
    def run_ids(self) -> RunIds:
        return {"study": None, "trials": {}}

    def study_started(self, info: StudyInfo) -> None:
        return

    def trial_started(self, number: int, key: str, params: Mapping[str, object]) -> None:
        return

    def trial_report(self, number: int, report: Mapping[str, Any]) -> None:
        return

    def trial_finished(
        self,
        number: int,
        status: str,
        metrics: Mapping[str, float],
        texts: Mapping[str, str],
        figures: RenderFigures | None,
        reason: str | None,
    ) -> None:
        return

    def comparison_finished(
        self, metrics: Mapping[str, float], texts: Mapping[str, str], figures: RenderFigures | None
    ) -> None:
        return

    def register_model(self, module: nn.Module, example: Tensor, name: str, alias: str = "champion") -> str | None:
        return None

    def study_finished(self, status: str) -> None:
        return
