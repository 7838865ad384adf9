"""Options of strategies are strict: an invalid option is refused in one line with its name."""

from __future__ import annotations

import dataclasses

import pytest

from nasact.bilevel import STRATEGIES, build
from nasact.bilevel.strategies.darts import DARTS
from nasact.bilevel.strategies.joint import Joint
from nasact.bilevel.strategies.unrolled import Unrolled
from nasact.errors import StudyError, UnknownName


def test_options_build_the_record() -> None:
    assert build("joint", {}) == Joint()
    assert build("darts", {"order": 1, "lr": 1}) == DARTS(order=1, lr=1.0)
    assert build("darts", {"mixed": "finite_difference", "difference_step": 0.001}).mixed == "finite_difference"
    assert build("unrolled", {"steps": 3}) == Unrolled(steps=3)
    assert isinstance(build("joint", {"lr": 1}).lr, float)


BAD = [
    ("joint", {"lr": -1.0}, "lr must be a positive number, but got -1.0"),
    ("joint", {"lr": 0}, "lr must be a positive number, but got 0.0"),
    ("joint", {"lr": float("nan")}, "lr must be a positive number, but got nan"),
    ("joint", {"lr": "fast"}, "lr must be a number, but got 'fast'"),
    ("joint", {"lr": True}, "lr must be a number, but got True"),
    ("joint", {"lr": None}, "lr must be a number, but got None"),
    ("joint", {"order": 2}, "unknown option 'order' of strategy 'joint'. It has: lr"),
    ("darts", {"ordr": 2}, "unknown option 'ordr' of strategy 'darts'. Did you mean 'order'?"),
    ("darts", {"update": "simultaneous", "order": 1}, "update 'simultaneous' needs order 2"),
    ("darts", {"update": "together"}, "update must be 'alternating' or 'simultaneous', but got 'together'"),
    ("darts", {"order": 3}, "order must be 1 or 2, but got 3"),
    ("darts", {"order": True}, "order must be 1 or 2, but got True"),
    ("darts", {"order": "2"}, "order must be 1 or 2, but got '2'"),
    ("darts", {"mixed": "exakt"}, "but got 'exakt'. Did you mean 'exact'?"),
    ("darts", {"mixed": 1}, "mixed must be 'exact' or 'finite_difference', but got 1"),
    ("darts", {"difference_step": -0.01}, "difference_step must be a positive number, but got -0.01"),
    ("unrolled", {"steps": 0}, "steps must be a whole number of at least 1, but got 0"),
    ("unrolled", {"steps": 1.5}, "steps must be a whole number, but got 1.5"),
    (
        "implicit",
        {"method": "newman"},
        "method must be 'neumann' or 'conjugate_gradient', but got 'newman'. Did you mean",
    ),
    ("implicit", {"iterations": 0}, "iterations must be a whole number of at least 1, but got 0"),
    ("implicit", {"neumann_step": -0.1}, "neumann_step must be a positive number, but got -0.1"),
    ("implicit", {"damping": -1}, "damping must be a number of at least 0, but got -1.0"),
    ("implicit", {"tolerance": 2}, "tolerance must be below 1"),
    ("implicit", {"step": 0.1}, "unknown option 'step' of strategy 'implicit'."),
    ("unrolled", {1: 2}, "unknown option 1 of strategy 'unrolled'"),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD, ids=[f"{n}-{o}" for n, o, _ in BAD])
def test_an_invalid_option_is_refused_in_one_line(name: str, options: dict, message: str) -> None:
    with pytest.raises(StudyError) as caught:
        build(name, options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("build_record", [lambda: DARTS(order=3), lambda: Joint(lr=-1), lambda: Unrolled(steps=0)])
def test_records_built_in_python_are_checked_too(build_record) -> None:
    with pytest.raises(StudyError):
        build_record()


def test_unknown_strategy_lists_near_names() -> None:
    with pytest.raises(
        UnknownName, match=r"unknown strategy 'dart'. Did you mean 'darts'\? \(nasact list strategies\)"
    ):
        build("dart", {})


def test_every_strategy_states_its_source_guarantee_and_cost() -> None:
    assert len(STRATEGIES) >= 11
    for cls in STRATEGIES.values():
        assert dataclasses.is_dataclass(cls)
        assert cls.__dataclass_params__.frozen
        for line in (cls.source, cls.guarantee, cls.cost):
            assert line
            assert "\n" not in line
