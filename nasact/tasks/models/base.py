"""The record of a model and the registry of all models.

A registered record is listed by the CLI, accepted by studies and run through the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from nasact.registry import Registry
from nasact.tasks.signature_options import FactoryRecord


@dataclass(frozen=True, kw_only=True)
class ModelRecord(FactoryRecord):
    """A model: the function `build(input_shape=, classes=, **options)` that builds it, and its description."""

    supplied: ClassVar[tuple[str, ...]] = ("input_shape", "classes")

    name: str
    build: Callable[..., nn.Module]
    description: str
    source: str
    inputs: str
    """The inputs that the model accepts, as text."""
    activation: str = "relu"
    """The activation functions of the model before a search, as text."""

    @property
    def factory(self) -> Callable[..., nn.Module]:
        return self.build


MODELS: Registry[ModelRecord] = Registry("model", "nasact list models")


def register_model(record: ModelRecord) -> ModelRecord:
    """Register a model under its name and return the record."""
    return MODELS.register(record.name, record)
