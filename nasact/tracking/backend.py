"""The protocol of a tracking store, as the outbox uses it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nasact.tracking.events import Event
from nasact.tracking.tracker import RunIds, StudyInfo

if TYPE_CHECKING:
    from torch import Tensor, nn


class Backend(Protocol):
    """A store that receives events. Delivering an event twice must give the same content as delivering it once.

    Methods may raise any exception unless their docstring says otherwise.
    """

    @property
    def uri(self) -> str:
        """Address of the store, as a user would pass it to --tracking-uri."""

    @property
    def run_ids(self) -> RunIds: ...

    def set_study(self, info: StudyInfo) -> None:
        """Set the study that the following events belong to. Does not contact the store."""

    def deliver(self, event: Event) -> str | None:
        """Store one event, also if the store holds all or part of it already. A model's address, None for others."""

    def is_reachable(self) -> bool:
        """Whether the store answers. Never raises."""

    def clear_cache(self) -> None:
        """Drop what this process knows about the store's content; the next call looks it up again."""

    def find_model(self, name: str, alias: str, digest: str) -> str | None:
        """Address of the study's network with this digest if it is registered as `name`@`alias`, else None."""

    def save_model(self, module: nn.Module, example: Tensor, folder: Path) -> None:
        """Write the network into `folder` in the format that the store registers. Does not contact the store."""
