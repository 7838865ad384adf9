"""The record of a dataset and the registry of all datasets.

A registered record is listed by the CLI, accepted by studies and run through the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from nasact.registry import Registry
from nasact.tasks.datasets.raw_dataset import RawDataset
from nasact.tasks.signature_options import FactoryRecord


@dataclass(frozen=True, kw_only=True)
class DatasetRecord(FactoryRecord):
    """A dataset: the function that loads it, and its description.

    `load(**options)` may also have the parameters `data_dir` (Path or None) and `download` (bool).
    """

    supplied: ClassVar[tuple[str, ...]] = ("data_dir", "download")

    name: str
    load: Callable[..., RawDataset]
    description: str
    source: str
    shape: str
    """The shape of one example, as text."""
    classes: str
    """The number of classes, as text."""
    preparation: str
    """How raw values become the float32 inputs."""
    """Whether `load` reads files that nasact does not install."""

    @property
    def factory(self) -> Callable[..., RawDataset]:
        return self.load


DATASETS: Registry[DatasetRecord] = Registry("dataset", "nasact list datasets")


def register_dataset(record: DatasetRecord) -> DatasetRecord:
    """Register a dataset under its name and return the record."""
    return DATASETS.register(record.name, record)
