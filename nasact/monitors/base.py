"""The protocol of a monitor, its context and its registry. Knows searches and validation data, but no study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from nasact.options import RecordRegistry
from nasact.supernet import Supernet
from nasact.supernet.top_k import TopK
from nasact.training.batches import LabelledExamples
from nasact.training.metrics import Direction, Loss


@dataclass(frozen=True, kw_only=True)
class MonitorContext:
    """A search after an epoch, or before its first epoch. Monitors must not change anything in it."""

    supernet: Supernet
    loss: Loss
    val: LabelledExamples
    seed: int
    """The seed of the search. What a monitor draws depends only on it, so that epochs can be compared."""
    top_k: TopK = 1
    """How many functions the study keeps at each site."""
    epoch: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The metrics of the search in this epoch (`training.loop.SEARCH_METRICS`)."""


class EpochMetrics(Protocol):
    """One epoch of a search and its metrics."""

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
    metrics: ClassVar[Mapping[str, Direction]]
    """Metric -> whether low or high values are better. `entropy.*` stands for one metric per site: `entropy.SITE`."""

    needs_precheck: ClassVar[bool]
    """Whether some supernets cannot be measured, so that a study must call `precheck` before its first trial."""

    def first_epoch(self) -> int:
        """The first epoch after which the monitor measures."""
        ...

    def precheck(self, context: MonitorContext) -> None:
        """Raise StudyError, with the reason, if this supernet cannot be measured. Called before the first step."""
        ...

    def measure(self, context: MonitorContext) -> dict[str, float]:
        """The metrics of this epoch, a pure function of `context`. A value that is not finite is left out."""
        ...

    def detect_collapse(self, history: Sequence[EpochMetrics]) -> Collapse | None:
        """The collapse that the last epoch of `history` shows, or None. A pure function; epochs of the warm-up are not
        in `history`."""
        ...

    def earliest_collapse(self, warmup: int) -> int | None:
        """The first epoch at which a collapse can be detected; None: never with these options."""
        ...


MONITORS: RecordRegistry[Monitor] = RecordRegistry("monitor", "nasact list monitors")
