"""A search at least as long as its strategy needs: run at its least for every strategy, refused below it."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from test_strategies import CASES
from torch import nn

from nasact.bilevel import Batch, Cycles, Regulariser, Shrink, Strategy, alpha_moves_from, candidates_left_at_end
from nasact.bilevel.phases import SearchPhase, least_epochs, phases_of
from nasact.bilevel.regularisers import REGULARISERS
from nasact.bilevel.regularisers.entropy import Entropy
from nasact.errors import DataError, StudyError
from nasact.mixture import kernels
from nasact.supernet import derive, relax
from nasact.training.loop import SearchRun, begin_search, search
from nasact.training.schedule import Constant, Exponential, Linear, Schedule
from nasact.training.schedule_checks import progress_of_steps

SPACE = ("silu", "tanh", "sigmoid")
X = torch.randn(24, 5, generator=torch.Generator().manual_seed(0))
DATA = Batch(X, (X[:, 0] > 0).long() + (X[:, 1] > 0.5).long())
ADAM = SimpleNamespace(name="adam", lr=1e-2, weight_decay=0.0, momentum=0.0)
ALL = pytest.mark.parametrize("strategy", CASES.values(), ids=CASES)


def begin(
    strategy: Strategy,
    *,
    schedule: Schedule | None = None,
    warmup: int = 0,
    regularisers: tuple[Regulariser, ...] = (),
) -> SearchRun:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    supernet = relax(
        net, SPACE, normaliser=(*strategy.normalisers, "softmax")[0], kernel=kernels.build("reference", {})
    )
    return begin_search(supernet, strategy, ADAM, seed=0, schedule=schedule, warmup=warmup, regularisers=regularisers)


def refusal(run: SearchRun, epochs: int, *, batch_size: int = 8, val: Batch = DATA) -> str:
    before = run.state_dict()
    with pytest.raises((StudyError, DataError)) as caught:
        next(search(run, DATA, val, epochs=epochs, batch_size=batch_size))
    assert run.epoch == run.state.step == 0
    assert str(before) == str(run.state_dict())
    return str(caught.value)


def test_these_strategies_need_more_than_an_epoch() -> None:
    assert len(CASES) >= 20
    needs = {name: least_epochs(strategy) for name, strategy in CASES.items() if least_epochs(strategy) > 1}
    assert needs == {"cycles": 3, "cycles_val": 3, "shrink": 4, "shrink_order_2": 4, "shrink_counts": 3}


@ALL
def test_a_search_of_the_least_epochs_does_all_that_the_strategy_promises(strategy: Strategy) -> None:
    run = begin(strategy, warmup=1)
    (rows, *_) = run.weights_over_time.values()
    epochs = list(search(run, DATA, DATA, epochs=least_epochs(strategy) + 1, batch_size=8))
    assert len(epochs) == least_epochs(strategy) + 1
    assert (rows[0] != rows[-1]) == (alpha_moves_from(strategy) is not None)
    left = candidates_left_at_end(strategy, len(SPACE))
    assert [int(mixture.alive.sum()) for mixture in run.supernet.mixtures().values()] == [left, left]
    derive(run.supernet, left)


@ALL
def test_one_epoch_less_is_refused_before_anything_moves(strategy: Strategy) -> None:
    least = least_epochs(strategy)
    said = refusal(begin(strategy, warmup=2), least + 1)
    if least == 1:
        assert said == "search: warmup must be smaller than epochs, but got (warmup=2, epochs=2)"
    else:
        reason = (
            f"must last an epoch at least: that takes {least} epochs after the warm-up, but got (epochs={least + 1}, "
        )
        assert reason in said
        assert said.startswith(f"search: strategy '{type(strategy).__name__.lower()}': ")


@pytest.mark.parametrize(
    ("strategy", "least"),
    [
        (Shrink(stages=6), 6),
        (Shrink(counts="3, 1"), 3),
        (Cycles(begin=0.1), 10),
        (Cycles(begin=0.0, end=0.5), 2),
        (Cycles(begin=0.0, end=1.0), 1),
        (Cycles(begin=0.5, end=math.nextafter(0.5, 1)), 10**9),
    ],
    ids=str,
)
def test_the_shortest_part_says_how_long_a_search_must_be(strategy: Strategy, least: int) -> None:
    assert least_epochs(strategy) == least
    phases = phases_of(strategy)
    assert phases[0].begin == 0.0
    assert phases[-1].end == 1.0
    assert all(before.end == after.begin for before, after in pairwise(phases))


def test_a_stage_in_which_alpha_gets_no_step_is_refused() -> None:
    """One batch an epoch: each stage's only step trains the weights alone."""
    assert refusal(begin(Shrink(stages=3)), 3, batch_size=24) == (
        "search: strategy 'shrink': stages: each of the 3 stages gets no step: the search has 3 after its warm-up; "
        "give it more epochs or smaller batches"
    )
    assert len(list(search(begin(Shrink(stages=3)), DATA, DATA, epochs=6, batch_size=24))) == 6


def test_a_last_stage_that_leaves_no_choice_needs_no_step_of_alpha() -> None:
    assert [phase.acts_from for phase in Shrink(stages=2, weights_only=0.5).phases] == [0.25, 0.5]
    assert [phase.acts_from for phase in Shrink(stages=2, weights_only=0.5, last=2).phases] == [0.25, 0.75]
    assert [phase.acts_from for phase in Shrink(counts="2", weights_only=0.5).phases] == [0.25, 0.75]


def test_the_steps_that_are_counted_are_those_that_the_loop_takes() -> None:
    run = begin(Shrink(stages=3), warmup=1)
    seen: list[float] = []
    strategy, step = run.strategy, Shrink.step

    class Listening(Shrink):
        def step(self, state, train, val):
            seen.append(state.progress)
            return step(strategy, state, train, val)

    run.strategy = Listening(stages=3)
    generator = search(run, DATA, DATA, epochs=5, batch_size=7)
    next(generator)
    seen.clear()  # of the check before the first step
    list(generator)
    assert seen == progress_of_steps(len(DATA.y), 7, 4)
    assert len(seen) == 4 * 4


@pytest.mark.parametrize("schedule", [Exponential(1.0, 0.1), Linear(1.0, 0.1)], ids=str)
def test_a_temperature_whose_end_is_never_reached_is_refused(schedule: Schedule) -> None:
    joint = CASES["joint"]
    assert refusal(begin(joint, schedule=schedule, warmup=2), 3) == (
        "search: temperature: one that is annealed starts in one epoch and ends in another: "
        "that takes 2 epochs after the warm-up, but got (epochs=3, warmup=2)"
    )
    *_, last = search(begin(joint, schedule=schedule, warmup=2), DATA, DATA, epochs=4, batch_size=8)
    assert last.metrics["temperature"] == 0.1
    assert len(list(search(begin(joint, schedule=Constant(2.0)), DATA, DATA, epochs=1, batch_size=8))) == 1


def test_a_regulariser_that_would_come_too_late_is_refused() -> None:
    assert [name for name, cls in REGULARISERS.items() if hasattr(cls, "phases")] == ["entropy"]
    late = (Entropy(start=0.75),)
    assert least_epochs(late[0]) == 4
    assert refusal(begin(CASES["joint"], regularisers=late), 3) == (
        "search: regulariser 'entropy': start: the rise of its coefficient must last an epoch at least: "
        "that takes 4 epochs, but got (epochs=3)"
    )
    # the only step in its phase finds it at its very beginning, where it is still zero
    assert "gets no step" in refusal(begin(CASES["joint"], regularisers=late), 4, batch_size=24)
    list(search(begin(CASES["joint"], regularisers=late), DATA, DATA, epochs=4, batch_size=8))


def test_a_search_without_validation_data_is_refused_with_the_reason() -> None:
    nothing = Batch(X[:0], DATA.y[:0])
    assert refusal(begin(CASES["darts"]), 2, val=nothing) == (
        "search: validation data: the split is empty: at least 1 example is needed, "
        "to train the mixture weights on, but got 0"
    )


@pytest.mark.parametrize(
    "phase", [SearchPhase(what="all", option="x"), SearchPhase(what="half", option="x", begin=0.5)], ids=str
)
def test_a_part_without_a_step_is_seen(phase: SearchPhase) -> None:
    assert phase.contains_any([0.0, 0.5])
    assert not phase.contains_any([])
    assert not SearchPhase(what="late", option="x", begin=0.6).contains_any([0.0, 0.5])
    assert not SearchPhase(what="early", option="x", begin=0.1, end=0.4).contains_any([0.0, 0.5])
