"""The model that a study names, built for its data. The only place where a spec becomes a module."""

from __future__ import annotations

from typing import Protocol

from torch import nn

from nasact.study import TrialSpec
from nasact.tasks import build_model


class TaskShape(Protocol):
    """The shapes that a model is built for: `tasks.Data`, or any object with these two attributes."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example, without the batch dimension."""
        ...

    @property
    def classes(self) -> int: ...


def build_study_model(spec: TrialSpec, shape: TaskShape, *, seed: int | None = None) -> nn.Module:
    """A fresh network of the study, on the CPU; `seed` initialises its weights (default: the study's).

    Raises ModelError if the model cannot be built or does not fit the data.
    """
    component = spec.task.model
    return build_model(
        component.name,
        component.options,
        input_shape=shape.input_shape,
        classes=shape.classes,
        seed=spec.seed if seed is None else seed,
    )
