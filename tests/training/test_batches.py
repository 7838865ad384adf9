"""Batches are a pure function of (seed, phase, epoch)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import pytest
import torch
from torch import Tensor

from nasact.errors import DataError
from nasact.training.batches import batch_sizes, batches, endless_batches


@dataclass(frozen=True)
class Examples:
    x: Tensor
    y: Tensor


def examples(count: int) -> Examples:
    return Examples(torch.arange(count, dtype=torch.float32).reshape(count, 1), torch.arange(count))


def labels(count: int, batch_size: int, **where: object) -> list[list[int]]:
    where = {"seed": 0, "phase": "train", "epoch": 0} | where
    return [batch.y.tolist() for batch in batches(examples(count), batch_size, **where)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [(10, 5, (5, 5)), (12, 5, (5, 5, 2)), (11, 5, (5, 5)), (3, 64, (3,)), (1, 64, (1,)), (3, 1, (1, 1, 1))],
)
def test_only_a_left_over_batch_of_one_is_dropped(count: int, batch_size: int, sizes: tuple[int, ...]) -> None:
    assert batch_sizes(count, batch_size) == sizes
    assert tuple(map(len, labels(count, batch_size))) == sizes


def test_an_epoch_sees_every_example_once_with_its_label() -> None:
    seen = list(batches(examples(23), 5, seed=1, phase="train", epoch=2))
    assert sorted(torch.cat([batch.y for batch in seen]).tolist()) == list(range(23))
    assert all(torch.equal(batch.x[:, 0], batch.y.float()) for batch in seen)


def test_the_order_depends_on_seed_phase_and_epoch_and_on_nothing_else() -> None:
    assert labels(50, 8) == labels(50, 8)
    others = [labels(50, 8, seed=1), labels(50, 8, phase="val"), labels(50, 8, epoch=1)]
    assert all(other != labels(50, 8) for other in others)
    state = torch.get_rng_state()
    labels(50, 8)
    assert torch.equal(state, torch.get_rng_state())


def test_endless_batches_go_through_the_data_again_in_another_order() -> None:
    drawn = [batch.y.tolist() for batch in islice(endless_batches(examples(6), 3, seed=0, phase="val", epoch=0), 6)]
    turns = [drawn[start] + drawn[start + 1] for start in (0, 2, 4)]
    assert all(sorted(turn) == list(range(6)) for turn in turns)
    assert turns[0] != turns[1]


def test_an_empty_split_is_an_error_that_names_it() -> None:
    with pytest.raises(DataError, match=r"^search\.val: the split is empty"):
        next(batches(examples(0), 4, seed=0, phase="search.val", epoch=0))
