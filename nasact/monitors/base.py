"""What a monitor is shown and what it promises. Knows searches and validation data; no study and no test data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

from nasact.errors import StudyError
from nasact.supernet import Supernet
from nasact.supernet.derivation import TopK
from nasact.training.batches import Labelled
from nasact.training.metrics import Loss

Better = Literal["low", "high"]


@dataclass(frozen=True, kw_only=True)
class MonitorContext:
    """A search after an epoch, or before the first one. Nothing in it is changed by a monitor."""

    supernet: Supernet
    loss: Loss
    val: Labelled
    seed: int
    """Of the search: what a monitor draws is a function of it alone, so that epochs can be compared."""
    top_k: TopK = 1
    """How many functions the study will keep at a site."""
    epoch: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What the epoch has measured already."""


class EpochMetrics(Protocol):
    """An epoch of the search and its metrics."""

    @property
    def epoch(self) -> int: ...

    @property
    def metrics(self) -> Mapping[str, float]: ...


@dataclass(frozen=True, kw_only=True)
class Collapse:
    """A collapse that `monitor` detected after `epoch`.

    `last_healthy_epoch`: the last epoch before the collapse.
    """

    monitor: str
    epoch: int
    last_healthy_epoch: int
    reason: str


class Monitor(Protocol):
    """What is measured after the epochs of a search: a frozen record of options."""

    name: ClassVar[str]
    source: ClassVar[str]
    summary: ClassVar[str]
    cost: ClassVar[str]
    metrics: ClassVar[Mapping[str, Better]]
    """Its metrics, and where each is better. `entropy.*` stands for one a site: `entropy.` and the site's name."""

    needs_precheck: ClassVar[bool]
    """Whether there are supernets that it cannot measure, so that `precheck` must try."""

    def first_epoch(self) -> int:
        """The first epoch after which it measures."""
        ...

    def precheck(self, context: MonitorContext) -> None:
        """StudyError, with the reason, where this supernet cannot be measured. Called before the first step."""
        ...

    def measure(self, context: MonitorContext) -> dict[str, float]:
        """The metrics of this epoch: a function of `context`, that leaves no trace in it. A number that would not be
        finite is left out."""
        ...

    def detect_collapse(self, history: Sequence[EpochMetrics]) -> Collapse | None:
        """Whether the last of these epochs shows a collapse. `history` begins after the warm-up; a pure function."""
        ...

    def earliest_collapse(self, warmup: int) -> int | None:
        """The first epoch at which it could tell a collapse; None: with these options it never does."""
        ...


def require_whole(option: str, value: int, least: int = 1) -> None:
    if value < least:
        raise StudyError(f"{option} must be at least {least}, but got {value}")
