"""Optimisers are built from all options of a study. A new optimiser is one registered record."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from nasact.errors import UnknownName
from nasact.study import Study
from nasact.training.optimisers import OPTIMISERS, OptimiserOptions, OptimiserRecord, build_optimiser


@dataclass(frozen=True)
class Options:
    name: str = "adam"
    lr: float = 0.1
    weight_decay: float = 0.01
    momentum: float = 0.8


def test_these_optimisers_are_registered() -> None:
    assert {"adam", "adamw", "sgd"} <= set(OPTIMISERS.names())


@pytest.mark.parametrize("name", OPTIMISERS.names())
def test_every_optimiser_takes_its_options_and_lowers_a_loss(name: str) -> None:
    weight = nn.Parameter(torch.tensor([3.0]))
    optimiser = build_optimiser([weight], Options(name=name))
    group = optimiser.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.1, 0.01)
    assert ("momentum" in group) == OPTIMISERS.get(name).has_momentum
    assert group.get("momentum", 0.8) == 0.8
    for _ in range(5):
        optimiser.zero_grad(set_to_none=True)
        (weight**2).sum().backward()
        optimiser.step()
    assert abs(weight.item()) < 3.0


def test_an_unknown_optimiser_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"unknown optimiser 'adma'\. Did you mean"):
        build_optimiser([nn.Parameter(torch.zeros(1))], Options(name="adma"))


def test_a_new_optimiser_is_one_registered_record(monkeypatch: pytest.MonkeyPatch) -> None:
    def rmsprop(parameters: list[nn.Parameter], options: OptimiserOptions) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(parameters, lr=options.lr, weight_decay=options.weight_decay)

    monkeypatch.setattr(OPTIMISERS, "_records", dict(OPTIMISERS.items()))  # removes the record at the end
    OPTIMISERS.register("rmsprop", OptimiserRecord(build=rmsprop))
    task = {"dataset": "digits", "model": "mlp"}
    search = {"optimiser": {"name": "rmsprop", "lr": 0.02}}
    spec = Study.from_tree({"task": task, "search_space": "basic", "search": search}).spec
    built = build_optimiser([nn.Parameter(torch.zeros(1))], spec.search.optimiser)
    assert isinstance(built, torch.optim.RMSprop)
    assert built.param_groups[0]["lr"] == 0.02
