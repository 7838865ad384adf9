"""A new strategy is one file in nasact/bilevel/strategies: it is listed, accepted in a study and run by a trial."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from bilevel_problems import batches, normaliser_for, tiny_supernet
from torch.nn import functional as F

from nasact.bilevel import STRATEGIES, build, check_search_moves
from nasact.cli.listing import kind_rows
from nasact.kinds import KINDS
from nasact.outer.data import load_study_data
from nasact.registry import import_submodules
from nasact.results import TrialResult
from nasact.study import Study
from nasact.trial import run_trial

PACKAGE = "nasact.bilevel.strategies"

SOURCE = '''
"""`clipped_first_order`: first-order DARTS with normaliser `clip`."""

from dataclasses import dataclass
from typing import ClassVar

from nasact.bilevel.strategies.base import STRATEGIES
from nasact.bilevel.strategies.first_order_alternating import FirstOrder


@dataclass(frozen=True, kw_only=True)
class ClippedFirstOrder(FirstOrder):
    """First-order DARTS on clipped weights."""

    normalisers: ClassVar[tuple[str, ...]] = ("clip",)
    normalisers_reason: ClassVar[str] = "it is an example"

    lr: float = 0.02


STRATEGIES.register("clipped_first_order", ClippedFirstOrder)
'''


@pytest.fixture
def new_strategy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Put the file into the package's path, import the package's modules, and forget all of it afterwards."""
    (tmp_path / "clipped_first_order.py").write_text(SOURCE)
    monkeypatch.setattr(sys.modules[PACKAGE], "__path__", [*sys.modules[PACKAGE].__path__, str(tmp_path)])
    with STRATEGIES.temporary():
        import_submodules(PACKAGE, [str(tmp_path)])
        yield "clipped_first_order"
    del sys.modules[f"{PACKAGE}.clipped_first_order"], sys.modules[PACKAGE].clipped_first_order


def trial_result(study: Study) -> TrialResult:
    reports = run_trial(study.spec, load_study_data(study.spec))
    while True:
        try:
            next(reports)
        except StopIteration as stop:
            return stop.value


def test_a_new_strategy_is_listed(new_strategy: str) -> None:
    (row,) = (row for row in kind_rows(KINDS["strategy"]) if row["name"] == new_strategy)
    assert row["options"] == "lr=0.02"
    assert {"guarantee", "cost", "source"} <= set(row)


def test_a_new_strategy_passes_the_check_at_the_start_of_a_search(new_strategy: str) -> None:
    strategy = build(new_strategy, {"lr": 0.1})
    supernet = tiny_supernet(normaliser=normaliser_for(strategy))
    state = strategy.init(supernet, torch.optim.SGD(supernet.weight_parameters(), lr=0.1), F.cross_entropy)
    check_search_moves(strategy, state, *batches())


def test_a_study_with_a_new_strategy_is_validated_and_its_trial_runs(new_strategy: str) -> None:
    study = Study.from_tree(
        {
            "task": {
                "dataset": "digits",
                "model": {"name": "mlp", "hidden": [8]},
                "train_limit": 100,
                "test_limit": 50,
            },
            "search_space": ["relu", "tanh"],
            "search": {"strategy": {"name": new_strategy, "lr": 0.1}, "epochs": 1},
            "retrain": {"epochs": 1},
        }
    )
    assert study.spec.search.normaliser == "clip", "the default is the normaliser of the record"
    result = trial_result(study)
    assert result.status == "complete"
    assert result.genotype is not None


def test_the_strategy_is_unknown_again_afterwards() -> None:
    assert "clipped_first_order" not in STRATEGIES
