"""How the temperature of the normaliser changes over the epochs of a search."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol

from nasact.errors import StudyError
from nasact.registry import Registry


class Schedule(Protocol):
    """A frozen record of hyperparameters; `epoch` counts from 0 to `epochs - 1`.

    One that needs more than one epoch after the warm-up tells `least_epochs`.
    """

    def temperature(self, epoch: int, epochs: int) -> float: ...


def least_epochs(schedule: Schedule) -> int:
    """The smallest number of epochs after the warm-up that it can do with."""
    told: int = getattr(schedule, "least_epochs", 1)
    return told


class ScheduleOptions(Protocol):
    """What a study says about the temperature (`study.TemperatureSpec`)."""

    @property
    def schedule(self) -> str: ...

    @property
    def start(self) -> float: ...

    @property
    def end(self) -> float | None: ...


def _require_positive(place: str, value: float) -> None:
    if not value > 0 or value == float("inf"):
        raise StudyError(f"{place}: a temperature must be finite and above 0, but got {value}")


@dataclass(frozen=True)
class Constant:
    """The same temperature in every epoch."""

    start: float = 1.0

    def __post_init__(self) -> None:
        _require_positive("search.temperature.start", self.start)

    def temperature(self, epoch: int, epochs: int) -> float:
        return self.start


@dataclass(frozen=True)
class _Annealed(ABC):
    """From `start` in the first epoch to `end` in the last."""

    least_epochs: ClassVar[int] = 2

    start: float = 1.0
    end: float = 0.1

    def __post_init__(self) -> None:
        _require_positive("search.temperature.start", self.start)
        _require_positive("search.temperature.end", self.end)

    def temperature(self, epoch: int, epochs: int) -> float:
        if epoch >= epochs - 1:
            return self.end if epochs > 1 else self.start
        return float(self._at(epoch / (epochs - 1)))

    @abstractmethod
    def _at(self, part: float) -> float: ...


@dataclass(frozen=True)
class Exponential(_Annealed):
    """From `start` in the first epoch to `end` in the last, by the same factor every epoch."""

    def _at(self, part: float) -> float:
        return float(self.start * (self.end / self.start) ** part)


@dataclass(frozen=True)
class Linear(_Annealed):
    """From `start` in the first epoch to `end` in the last, by the same difference every epoch (GDAS: 10 to 0.1)."""

    def _at(self, part: float) -> float:
        return self.start + (self.end - self.start) * part


SCHEDULES: Registry[type[Constant] | type[Exponential] | type[Linear]] = Registry("temperature schedule")
SCHEDULES.register("constant", Constant)
SCHEDULES.register("exponential", Exponential)
SCHEDULES.register("linear", Linear)


def build_schedule(options: ScheduleOptions) -> Schedule:
    """The schedule that `options` names; an end that is left out is the start."""
    schedule = SCHEDULES.get(options.schedule)
    if issubclass(schedule, _Annealed):
        return schedule(options.start, options.start if options.end is None else options.end)
    if options.end is not None and options.end != options.start:
        raise StudyError(
            f"search.temperature.end: a constant schedule stays at start={options.start}, but got end={options.end}."
            " Did you mean schedule 'exponential'?"
        )
    return Constant(options.start)
