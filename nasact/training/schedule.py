"""The temperature of the normaliser as a function of the epoch. A new schedule is one class and one line here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol

from nasact.errors import StudyError
from nasact.registry import Registry


class Schedule(Protocol):
    """The temperature in each epoch of a search: a frozen record. `epoch` counts from 0 to `epochs - 1`.

    Optional attributes:

    - `least_epochs`: the smallest number of epochs after the warm-up. Default 1.
    """

    def temperature(self, epoch: int, epochs: int) -> float: ...


def least_epochs(schedule: Schedule) -> int:
    """The smallest number of epochs after the warm-up that `schedule` needs."""
    epochs: int = getattr(schedule, "least_epochs", 1)
    return epochs


class ScheduleOptions(Protocol):
    """A temperature as a study describes it: `study.sections.Temperature`."""

    @property
    def schedule(self) -> str: ...

    @property
    def start(self) -> float: ...

    @property
    def end(self) -> float | None: ...


def _require_temperature(place: str, value: float) -> None:
    if not value > 0 or value == float("inf"):
        raise StudyError(f"{place}: a temperature must be finite and above 0, but got {value}")


@dataclass(frozen=True)
class Constant:
    """The same temperature in every epoch."""

    start: float = 1.0

    def __post_init__(self) -> None:
        _require_temperature("search.temperature.start", self.start)

    def temperature(self, epoch: int, epochs: int) -> float:
        return self.start


@dataclass(frozen=True)
class Annealed(ABC):
    """A temperature that changes from `start` in the first epoch to `end` in the last epoch."""

    least_epochs: ClassVar[int] = 2

    start: float = 1.0
    end: float = 0.1

    def __post_init__(self) -> None:
        _require_temperature("search.temperature.start", self.start)
        _require_temperature("search.temperature.end", self.end)

    def temperature(self, epoch: int, epochs: int) -> float:
        if epoch >= epochs - 1:
            return self.end if epochs > 1 else self.start
        return float(self._interpolate(epoch / (epochs - 1)))

    @abstractmethod
    def _interpolate(self, fraction: float) -> float:
        """The temperature at this fraction (0 to below 1) of the way from `start` to `end`."""
        ...


@dataclass(frozen=True)
class Exponential(Annealed):
    """From `start` to `end` by the same factor in every epoch."""

    def _interpolate(self, fraction: float) -> float:
        return float(self.start * (self.end / self.start) ** fraction)


@dataclass(frozen=True)
class Linear(Annealed):
    """From `start` to `end` by the same difference in every epoch (GDAS: 10 to 0.1)."""

    def _interpolate(self, fraction: float) -> float:
        return self.start + (self.end - self.start) * fraction


SCHEDULES: Registry[type[Constant] | type[Annealed]] = Registry("temperature schedule")
SCHEDULES.register("constant", Constant)
SCHEDULES.register("exponential", Exponential)
SCHEDULES.register("linear", Linear)


def build_schedule(options: ScheduleOptions) -> Schedule:
    """The schedule that `options` names; without an `end` an annealed temperature stays at `start`."""
    schedule = SCHEDULES.get(options.schedule)
    if issubclass(schedule, Annealed):
        return schedule(options.start, options.start if options.end is None else options.end)
    if options.end is not None and options.end != options.start:
        raise StudyError(
            f"search.temperature.end: a constant schedule stays at start={options.start}, but got end={options.end}."
            " Did you mean schedule 'exponential'?"
        )
    return schedule(options.start)
