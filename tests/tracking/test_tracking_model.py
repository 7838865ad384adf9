"""The final network in the registry: it loads with torch only, for any batch size, and computes the same outputs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nasact import derive, relax
from nasact.tracking import MLflowTracker, StudyInfo

Make = Callable[..., MLflowTracker]

LOAD = """
import sys, torch, mlflow
network = mlflow.pytorch.load_model(sys.argv[1])
assert "nasact" not in sys.modules
data = torch.load(sys.argv[2])
print(max((network(x) - y).abs().max().item() for x, y in zip(data["inputs"], data["outputs"])))
"""


def _derived() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(144, 8), nn.Tanh()
    )
    supernet = relax(model, space=["relu", "tanh", "sin", "elu"], level="channel")
    with torch.no_grad():
        for alpha in supernet.arch_parameters():
            alpha.normal_()
    return derive(supernet, top_k=2).apply(model)


def test_a_derived_network_is_registered_and_reloaded_without_nasact(
    make_tracker: Make, database: Path, info: StudyInfo, store: Any, tmp_path: Path, capfd: Any
) -> None:
    tracker = make_tracker()
    tracker.study_started(info)
    module = _derived().train()
    address = tracker.register_model(module, torch.randn(1, 1, 8, 8), "nasact-digits")
    assert address == "models:/nasact-digits/1"
    assert module.training
    assert capfd.readouterr().out == ""
    assert store.study().data.tags["nasact.model"] == address

    module.eval()
    inputs = [torch.randn(n, 1, 8, 8) for n in (1, 2, 3, 17)]
    torch.save({"inputs": inputs, "outputs": [module(x).detach() for x in inputs]}, tmp_path / "data.pt")
    uri = f"sqlite:///{database}"
    result = subprocess.run(
        [sys.executable, "-c", LOAD, "models:/nasact-digits@champion", str(tmp_path / "data.pt")],
        env={**os.environ, "MLFLOW_TRACKING_URI": uri, "MLFLOW_REGISTRY_URI": uri, "PYTHONPATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 1e-5


def test_the_same_network_is_registered_once_and_a_better_one_becomes_champion(
    make_tracker: Make, info: StudyInfo, store: Any
) -> None:
    def champion() -> str:
        return str(store.client.get_model_version_by_alias("net", "champion").version)

    first, better = nn.Linear(3, 2), nn.Linear(3, 2)
    tracker = make_tracker()
    tracker.study_started(info)
    assert tracker.register_model(first, torch.ones(2, 3), "net") == "models:/net/1"
    assert register_in_a_new_tracker(make_tracker, info, first) == "models:/net/1"
    assert champion() == "1"
    assert tracker.register_model(better, torch.ones(5, 3), "net") == "models:/net/2"
    assert champion() == "2"
    assert len(store.client.search_logged_models(["1"])) == 2


def register_in_a_new_tracker(make_tracker: Make, info: StudyInfo, module: nn.Module) -> str | None:
    tracker = make_tracker()
    tracker.study_started(info)
    return tracker.register_model(module, torch.ones(2, 3), "net")


def test_a_network_is_registered_when_an_unreachable_store_is_back(
    make_tracker: Make, database: Path, info: StudyInfo, store: Any
) -> None:
    tracker = make_tracker()
    tracker.study_started(info)
    database.rename(database.with_suffix(".away"))
    assert tracker.register_model(nn.Linear(3, 2), torch.ones(2, 3), "net") is None
    tracker.study_finished("complete")
    database.with_suffix(".away").rename(database)
    again = make_tracker()
    again.study_started(info)
    assert again.pending_count == 0
    version = store.client.get_model_version_by_alias("net", "champion")
    assert version.run_id == store.study().info.run_id
    (model,) = store.client.search_logged_models(["1"])
    assert str(model.status) == "READY"


@pytest.mark.parametrize("name", ["a/b:c", "größe.v2", ""])
def test_odd_names_of_networks_are_cleaned(name: str, make_tracker: Make, info: StudyInfo) -> None:
    tracker = make_tracker()
    tracker.study_started(info)
    address = tracker.register_model(nn.Linear(3, 2), torch.ones(2, 3), name)
    assert address is not None
    assert tracker.pending_count == 0
