"""A search by finite differences over candidates with kinks starts with one warning that names site and candidate."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nasact.bilevel.strategies.darts import DARTS
from nasact.supernet import relax


def warnings_at_start(strategy: DARTS, space: tuple[str, ...]) -> list[str]:
    """Return the warnings at the start of a search with two sites."""
    supernet = relax(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), space)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        strategy.init(supernet, torch.optim.SGD(supernet.weight_parameters(), lr=0.1), F.cross_entropy)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
def test_a_kinked_candidate_is_named_with_its_site_once_per_search(update) -> None:
    (message,) = warnings_at_start(DARTS(mixed="finite_difference", update=update), ("tanh", "hardtanh", "relu"))
    assert message.startswith("site '1': candidate 'hardtanh' has a kink at -1, 1: mixed 'finite_difference' can be ")
    assert message.endswith("use mixed 'exact'")


@pytest.mark.parametrize(
    ("strategy", "space"),
    [
        (DARTS(mixed="finite_difference"), ("tanh", "silu")),
        (DARTS(mixed="exact"), ("tanh", "relu")),
        (DARTS(mixed="finite_difference", order=1), ("tanh", "relu")),
    ],
    ids=["smooth", "exact", "order 1"],
)
def test_there_is_no_warning_if_no_difference_crosses_a_kink(strategy: DARTS, space: tuple[str, ...]) -> None:
    assert warnings_at_start(strategy, space) == []
