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


def labels(count: int, batch_size: int, **keys: object) -> list[list[int]]:
    keys = {"seed": 0, "phase": "train", "epoch": 0} | keys
    return [batch.y.tolist() for batch in batches(examples(count), batch_size, **keys)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [(10, 5, (5, 5)), (12, 5, (5, 5, 2)), (11, 5, (5, 5)), (3, 64, (3,)), (1, 64, (1,)), (3, 1, (1, 1, 1))],
)
def test_only_a_last_batch_of_one_is_dropped(count: int, batch_size: int, sizes: tuple[int, ...]) -> None:
    assert batch_sizes(count, batch_size) == sizes
    assert tuple(map(len, labels(count, batch_size))) == sizes


def test_an_epoch_contains_every_example_once_with_its_label() -> None:
    epoch = list(batches(examples(23), 5, seed=1, phase="train", epoch=2))
    assert sorted(torch.cat([batch.y for batch in epoch]).tolist()) == list(range(23))
    assert all(torch.equal(batch.x[:, 0], batch.y.float()) for batch in epoch)


def test_the_order_depends_only_on_seed_phase_and_epoch() -> None:
    assert labels(50, 8) == labels(50, 8)
    others = [labels(50, 8, seed=1), labels(50, 8, phase="val"), labels(50, 8, epoch=1)]
    assert all(other != labels(50, 8) for other in others)
    state = torch.get_rng_state()
    labels(50, 8)
    assert torch.equal(state, torch.get_rng_state())


def test_endless_batches_pass_over_the_data_again_in_another_order() -> None:
    drawn = [batch.y.tolist() for batch in islice(endless_batches(examples(6), 3, seed=0, phase="val", epoch=0), 6)]
    passes = [drawn[start] + drawn[start + 1] for start in (0, 2, 4)]
    assert all(sorted(labels_of_pass) == list(range(6)) for labels_of_pass in passes)
    assert passes[0] != passes[1]


def test_an_empty_split_is_refused_with_its_name() -> None:
    with pytest.raises(DataError, match=r"^search\.val: the split is empty"):
        next(batches(examples(0), 4, seed=0, phase="search.val", epoch=0))
