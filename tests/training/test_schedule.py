"""The temperature over the epochs of a search. A new schedule is one registered class."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest

from nasact.errors import StudyError, UnknownName
from nasact.study import Study
from nasact.training.schedule import SCHEDULES, Annealed, Constant, Exponential, Linear, build_schedule


@dataclass(frozen=True)
class Options:
    schedule: str = "constant"
    start: float = 1.0
    end: float | None = None


def test_exponential_changes_by_the_same_factor_in_every_epoch() -> None:
    schedule = Exponential(2.0, 0.02)
    values = [schedule.temperature(epoch, 9) for epoch in range(9)]
    assert values[0] == 2.0
    assert values[-1] == 0.02
    factors = [after / before for before, after in pairwise(values)]
    assert factors == pytest.approx([0.01 ** (1 / 8)] * 8)


def test_linear_changes_by_the_same_difference_in_every_epoch() -> None:
    schedule = Linear(10.0, 0.1)
    values = [schedule.temperature(epoch, 12) for epoch in range(12)]
    assert values[0] == 10.0
    assert values[-1] == 0.1
    assert [after - before for before, after in pairwise(values)] == pytest.approx([-0.9] * 11)


@pytest.mark.parametrize("schedule", [Exponential, Linear])
def test_a_single_epoch_has_the_start_temperature(schedule: type[Exponential] | type[Linear]) -> None:
    assert schedule(2.0, 0.5).temperature(0, 1) == 2.0


def test_constant_is_the_same_in_every_epoch() -> None:
    assert {Constant(0.7).temperature(epoch, 5) for epoch in range(5)} == {0.7}


def test_schedules_are_built_by_name() -> None:
    assert build_schedule(Options("constant", 0.5)) == Constant(0.5)
    assert build_schedule(Options("exponential", 1.0, 0.1)) == Exponential(1.0, 0.1)
    assert build_schedule(Options("exponential", 0.3)) == Exponential(0.3, 0.3)
    assert build_schedule(Options("linear", 10.0, 0.1)) == Linear(10.0, 0.1)
    assert build_schedule(Options("linear", 0.3)) == Linear(0.3, 0.3)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (Options("constant", 0.0), "search.temperature.start: a temperature must be finite and above 0, but got 0.0"),
        (Options("exponential", 1.0, -1.0), "search.temperature.end: a temperature must be finite and above 0"),
        (Options("linear", 1.0, 0.0), "search.temperature.end: a temperature must be finite and above 0, but got 0.0"),
        (Options("constant", float("nan")), "but got nan"),
        (Options("constant", 1.0, 0.1), "Did you mean schedule 'exponential'"),
    ],
)
def test_an_invalid_temperature_is_refused_in_one_line(options: Options, line: str) -> None:
    with pytest.raises(StudyError) as raised:
        build_schedule(options)
    assert line in str(raised.value)


def test_an_unknown_schedule_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'exponential'"):
        build_schedule(Options("exponental"))


@dataclass(frozen=True)
class Cosine(Annealed):
    """From `start` to `end` along half a cosine wave."""

    def _interpolate(self, fraction: float) -> float:
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * fraction)) / 2


def test_a_new_schedule_is_one_registered_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SCHEDULES, "_records", dict(SCHEDULES.items()))  # removes the class at the end
    SCHEDULES.register("cosine", Cosine)
    task = {"dataset": "digits", "model": "mlp"}
    search = {"temperature": {"schedule": "cosine", "start": 1.0, "end": 0.1}}
    spec = Study.from_tree({"task": task, "search_space": "basic", "search": search}).spec
    schedule = build_schedule(spec.search.temperature)
    assert schedule == Cosine(1.0, 0.1)
    assert [schedule.temperature(epoch, 3) for epoch in range(3)] == pytest.approx([1.0, 0.55, 0.1])
