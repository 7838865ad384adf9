"""A new derivation is one registered record: listed, accepted by studies, used in trials, without another edit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest
from click.testing import CliRunner

from nasact.cli.listing import list_group
from nasact.derivation import DERIVATIONS, CostEstimate, DerivationContext, Derived
from nasact.derivation.alternatives import uniform_genotypes
from nasact.errors import StudyError
from nasact.outer.data import load_study_data
from nasact.study import Study
from nasact.supernet.top_k import TopK
from nasact.trial import run_to_end


@dataclass(frozen=True, kw_only=True)
class SameFunction:
    source: ClassVar[str] = "this test"
    summary: ClassVar[str] = "puts one candidate at all sites"
    cost: ClassVar[str] = "none"
    levels: ClassVar[tuple[str, ...]] = ("layer",)

    index: int = 0

    def refusal(self, top_k: TopK) -> str | None:
        return None if top_k == 1 else "it keeps one function"

    def estimate_cost(self, sites: Sequence[tuple[int, int]]) -> CostEstimate:
        return CostEstimate()

    def derive(self, context: DerivationContext, top_k: TopK) -> Derived:
        return Derived(uniform_genotypes(context.supernet)[self.index], {"networks": 0, "epochs": 0})


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DERIVATIONS, "_records", dict(DERIVATIONS.items()))  # removes the record at the end
    DERIVATIONS.register("same_function", SameFunction)


def study(top_k: int = 1, level: str = "layer") -> Study:
    task = {"dataset": "digits", "model": {"name": "mlp", "hidden": [8, 8]}, "train_limit": 100, "test_limit": 20}
    search = {"epochs": 1, "level": level}
    derive = {"method": {"name": "same_function", "index": 1}, "top_k": top_k}
    tree = {"task": task, "search_space": ["relu", "tanh"], "retrain": {"epochs": 1}}
    return Study.from_tree({**tree, "search": search, "derive": derive})


def test_a_new_derivation_is_listed_with_its_options() -> None:
    rows = json.loads(CliRunner().invoke(list_group, ["derivations", "--json"]).stdout)
    (row,) = [row for row in rows if row["name"] == "same_function"]
    assert (row["options"], row["levels"], row["cost"]) == ("index=0", "layer", "none")
    assert row["summary"] == "puts one candidate at all sites"


def test_a_study_refuses_what_a_new_derivation_does_not_support() -> None:
    assert study().spec.derive.method.name == "same_function"
    with pytest.raises(StudyError, match=r"derive.top_k: derivation 'same_function' .*: it keeps one function"):
        study(top_k=2)
    with pytest.raises(StudyError, match=r"derivation 'same_function' needs level layer, but .* is 'channel'"):
        study(level="channel")


def test_a_trial_derives_its_genotype_with_a_new_derivation() -> None:
    spec = study().spec
    result = run_to_end(spec, load_study_data(spec))
    assert result.status == "complete"
    assert result.genotype is not None
    assert {gene.single for gene in result.genotype.sites.values()} == {"tanh"}
    assert result.metrics["derive_epochs"] == 0
