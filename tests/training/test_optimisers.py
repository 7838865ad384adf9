"""Optimisers are built from what a study says, every option of it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from nasact.errors import UnknownName
from nasact.training.optimisers import OPTIMISERS, build_optimiser


@dataclass(frozen=True)
class Options:
    name: str = "adam"
    lr: float = 0.1
    weight_decay: float = 0.01
    momentum: float = 0.8


def test_three_optimisers_are_known() -> None:
    assert OPTIMISERS.names() == ("adam", "adamw", "sgd")


@pytest.mark.parametrize("name", OPTIMISERS.names())
def test_each_takes_the_options_and_lowers_a_loss(name: str) -> None:
    weight = nn.Parameter(torch.tensor([3.0]))
    optimiser = build_optimiser([weight], Options(name=name))
    group = optimiser.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.1, 0.01)
    assert group.get("momentum", 0.8) == 0.8
    for _ in range(5):
        optimiser.zero_grad(set_to_none=True)
        (weight**2).sum().backward()
        optimiser.step()
    assert abs(weight.item()) < 3.0


def test_an_unknown_optimiser_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"unknown optimiser 'adma'\. Did you mean"):
        build_optimiser([nn.Parameter(torch.zeros(1))], Options(name="adma"))
