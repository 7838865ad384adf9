"""Every strategy runs with the smallest number of epochs that its phases need, and is refused with fewer."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from test_strategies import CASES
from torch import nn

from nasact.bilevel import Batch, Regulariser, Strategy, registered_name, remaining_candidates
from nasact.bilevel.phases import SearchPhase, least_epochs, phases_of
from nasact.bilevel.regularisers import REGULARISERS
from nasact.bilevel.regularisers.entropy import Entropy
from nasact.bilevel.strategies import alpha_moves_from
from nasact.bilevel.strategies.cycles import Cycles
from nasact.bilevel.strategies.shrink import Shrink
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


def begin_run(
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
    """Return the error message of a search that is refused before its first step."""
    before = run.state_dict()
    with pytest.raises((StudyError, DataError)) as caught:
        next(search(run, DATA, val, epochs=epochs, batch_size=batch_size))
    assert run.epoch == run.state.step == 0
    assert str(before) == str(run.state_dict())
    return str(caught.value)


def test_strategies_with_phases_need_one_epoch_per_phase() -> None:
    assert len(CASES) >= 20
    least = {name: least_epochs(strategy) for name, strategy in CASES.items()}
    expected = {"cycles": 3, "cycles_val": 3, "shrink": 4, "shrink_order_2": 4, "shrink_counts": 3, "darts": 1}
    assert {name: least[name] for name in expected} == expected


@ALL
def test_a_search_of_the_least_epochs_moves_alpha_and_drops_candidates(
    strategy: Strategy,
) -> None:
    run = begin_run(strategy, warmup=1)
    (rows, *_) = run.weights_over_time.values()
    epochs = list(search(run, DATA, DATA, epochs=least_epochs(strategy) + 1, batch_size=8))
    assert len(epochs) == least_epochs(strategy) + 1
    assert (rows[0] != rows[-1]) == (alpha_moves_from(strategy) is not None)
    remaining = remaining_candidates(strategy, len(SPACE))
    assert [int(mixture.alive.sum()) for mixture in run.supernet.mixtures().values()] == [remaining, remaining]
    derive(run.supernet, remaining)


@ALL
def test_one_epoch_less_is_refused_before_anything_moves(strategy: Strategy) -> None:
    least = least_epochs(strategy)
    message = refusal(begin_run(strategy, warmup=2), least + 1)
    if least == 1:
        assert message == "search: warmup must be smaller than epochs, but got (warmup=2, epochs=2)"
    else:
        reason = (
            f"must last an epoch at least: that takes {least} epochs after the warm-up, but got (epochs={least + 1}, "
        )
        assert reason in message
        assert message.startswith(f"search: strategy {registered_name(strategy)!r}: ")


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
def test_the_shortest_phase_determines_the_least_number_of_epochs(strategy: Strategy, least: int) -> None:
    assert least_epochs(strategy) == least
    phases = phases_of(strategy)
    assert phases[0].begin == 0.0
    assert phases[-1].end == 1.0
    assert all(before.end == after.begin for before, after in pairwise(phases))


def test_a_stage_in_which_alpha_gets_no_step_is_refused() -> None:
    """One batch per epoch: the only step of each stage trains only the weights."""
    assert refusal(begin_run(Shrink(stages=3)), 3, batch_size=24) == (
        "search: strategy 'shrink': stages: each of the 3 stages gets no step: the search has 3 after its warm-up; "
        "give it more epochs or smaller batches"
    )
    assert len(list(search(begin_run(Shrink(stages=3)), DATA, DATA, epochs=6, batch_size=24))) == 6


def test_a_last_stage_with_one_candidate_needs_no_step_of_alpha() -> None:
    assert [phase.acts_from for phase in Shrink(stages=2, weights_only=0.5).phases] == [0.25, 0.5]
    assert [phase.acts_from for phase in Shrink(stages=2, weights_only=0.5, last=2).phases] == [0.25, 0.75]
    assert [phase.acts_from for phase in Shrink(counts="2", weights_only=0.5).phases] == [0.25, 0.75]


def test_the_checked_steps_are_those_of_the_search_loop() -> None:
    run = begin_run(Shrink(stages=3), warmup=1)
    progress_of_step: list[float] = []
    strategy, step = run.strategy, Shrink.step

    class RecordingShrink(Shrink):
        def step(self, state, train, val):
            progress_of_step.append(state.progress)
            return step(strategy, state, train, val)

    run.strategy = RecordingShrink(stages=3)
    generator = search(run, DATA, DATA, epochs=5, batch_size=7)
    next(generator)
    progress_of_step.clear()  # remove the steps of the check at the start
    list(generator)
    assert progress_of_step == progress_of_steps(len(DATA.y), 7, 4)
    assert len(progress_of_step) == 4 * 4


@pytest.mark.parametrize("schedule", [Exponential(1.0, 0.1), Linear(1.0, 0.1)], ids=str)
def test_a_search_too_short_to_anneal_its_temperature_is_refused(schedule: Schedule) -> None:
    joint = CASES["joint"]
    assert refusal(begin_run(joint, schedule=schedule, warmup=2), 3) == (
        "search: temperature: an annealed temperature starts in one epoch and ends in another: "
        "that takes 2 epochs after the warm-up, but got (epochs=3, warmup=2)"
    )
    *_, last = search(begin_run(joint, schedule=schedule, warmup=2), DATA, DATA, epochs=4, batch_size=8)
    assert last.metrics["temperature"] == 0.1
    assert len(list(search(begin_run(joint, schedule=Constant(2.0)), DATA, DATA, epochs=1, batch_size=8))) == 1


def test_a_regulariser_that_starts_too_late_is_refused() -> None:
    assert hasattr(REGULARISERS.get("entropy"), "phases")
    late = (Entropy(start=0.75),)
    assert least_epochs(late[0]) == 4
    assert refusal(begin_run(CASES["joint"], regularisers=late), 3) == (
        "search: regulariser 'entropy': start: the rise of its coefficient must last an epoch at least: "
        "that takes 4 epochs, but got (epochs=3)"
    )
    # the only step in the phase is at its start, where the penalty is still zero
    assert "gets no step" in refusal(begin_run(CASES["joint"], regularisers=late), 4, batch_size=24)
    list(search(begin_run(CASES["joint"], regularisers=late), DATA, DATA, epochs=4, batch_size=8))


def test_a_search_without_validation_data_is_refused_with_the_reason() -> None:
    nothing = Batch(X[:0], DATA.y[:0])
    assert refusal(begin_run(CASES["darts"]), 2, val=nothing) == (
        "search: validation data: the split is empty: at least 1 example is needed, "
        "to train the mixture weights on, but got 0"
    )


@pytest.mark.parametrize(
    "phase", [SearchPhase(what="all", option="x"), SearchPhase(what="half", option="x", begin=0.5)], ids=str
)
def test_a_phase_without_a_step_is_found(phase: SearchPhase) -> None:
    assert phase.contains_any([0.0, 0.5])
    assert not phase.contains_any([])
    assert not SearchPhase(what="late", option="x", begin=0.6).contains_any([0.0, 0.5])
    assert not SearchPhase(what="early", option="x", begin=0.1, end=0.4).contains_any([0.0, 0.5])
