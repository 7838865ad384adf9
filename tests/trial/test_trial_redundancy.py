"""Redundancy in a study: dropped candidates are the same in a continued trial; results and `nasact check` show them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from nasact.errors import StudyError
from nasact.outer.preview import preview
from nasact.report.terminal import print_preview
from nasact.results import Report, TrialResult
from nasact.study import Study, TrialSpec
from nasact.supernet_setup import begin_supernet
from nasact.tasks import Data
from nasact.trial import run_trial

Driver = Callable[..., tuple[list[Report], TrialResult]]
SPACE = ["relu", "relu6", "tanh", "hard_sigmoid", "sin"]
# before the first step of an mlp on the digits the inputs of a site are in [-3, 3], where hard_sigmoid is linear
ALIASES = {"search_space": [*SPACE, "identity"], "redundancy": {"drop": "aliases", "input_scale": 1.0}}


def test_a_search_drops_the_aliases_that_every_site_has(
    make_spec: Callable[..., TrialSpec], data: Data, driver: Driver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = make_spec(**ALIASES, search={"strategy": "joint", "epochs": 2}, retrain={"epochs": 1})
    with caplog.at_level(logging.WARNING):
        _, whole = driver(run_trial(spec, data))
    assert "without relu6: relu6 = relu" in caplog.text
    searched = whole.banks["act1"]
    assert set(searched) < set(SPACE)
    assert "relu" in searched
    assert "relu6" not in searched
    assert set(whole.genotype.functions()) <= set(searched)
    assert {len(row) for rows in whole.weights_over_time.values() for row in rows} == {len(searched)}
    assert whole.spec["search_space"] == [*SPACE, "identity"]

    # interrupted in the search and again in the retraining
    for reports in (1, 2):
        running = run_trial(spec, data, directory=tmp_path)
        for _ in range(reports):
            next(running)
        running.close()
    _, again = driver(run_trial(spec, data, directory=tmp_path))
    assert again.banks == whole.banks
    assert again.genotype == whole.genotype
    assert again.weights_over_time == whole.weights_over_time

    assert TrialResult.from_dict(json.loads(json.dumps(whole.to_dict(), allow_nan=False))) == whole


def test_a_candidate_that_is_redundant_only_at_narrow_inputs_is_kept(
    make_spec: Callable[..., TrialSpec], data: Data
) -> None:
    spec = make_spec(search_space=[*SPACE, "identity", "elu", "celu"], redundancy={"drop": "aliases"})
    names = begin_supernet(spec, data).mixtures()["act1"].names
    # identity equals hard_sigmoid only at narrow inputs; relu6 equals relu, and celu elu, at wider inputs too
    assert names == ("relu", "tanh", "hard_sigmoid", "sin", "identity", "elu")


def test_no_candidate_is_dropped_by_default(make_spec: Callable[..., TrialSpec], data: Data) -> None:
    spec = make_spec(search_space=SPACE)
    assert {m.names for m in begin_supernet(spec, data).mixtures().values()} == {tuple(SPACE)}


def test_candidates_of_a_derivation_or_a_regulariser_are_kept(make_spec: Callable[..., TrialSpec], data: Data) -> None:
    warnings: list[str] = []
    many = make_spec(**ALIASES, derive={"top_k": 5})
    assert {len(m.names) for m in begin_supernet(many, data, warnings.append).mixtures().values()} == {5}
    assert "is kept: at least 5 candidates must remain" in warnings[0]
    pulled = make_spec(**ALIASES, search={"regularisers": [{"name": "layer_mean", "delta": 0.1, "benchmark": "relu6"}]})
    assert all("relu6" in mixture.names for mixture in begin_supernet(pulled, data).mixtures().values())


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            {"drop": "alias"},
            "redundancy.drop: unknown drop 'alias'. Did you mean 'aliases'? (one of none, aliases, dep",
        ),
        ({"dorp": "none"}, "redundancy.dorp: unknown key 'dorp'. Did you mean 'drop'?"),
        ({"tolerance": 0}, "redundancy.tolerance: must be greater than 0, but got 0"),
        ({"input_scale": 0.5}, "redundancy.input_scale: must be at least 1, but got 0.5"),
        ({"tolerance": 1.5}, "redundancy.tolerance: must be less than 1, but got 1.5"),
        ({"drop": True}, "redundancy.drop: expected a text, but got true"),
    ],
    ids=["drop", "key", "zero", "narrow", "large", "kind"],
)
def test_a_wrong_setting_is_refused_with_its_place(node: dict[str, Any], message: str) -> None:
    tree = {"task": {"dataset": "digits", "model": "mlp"}, "search_space": "basic"}
    with pytest.raises(StudyError) as error:
        Study.from_tree({**tree, "redundancy": node})
    assert str(error.value).startswith(message)


def test_check_prints_redundant_candidates_in_80_columns(make_spec: Callable[..., TrialSpec]) -> None:
    study = Study.from_tree(make_spec(search_space=[*SPACE, "identity"], redundancy={"input_scale": 1}).to_tree())
    document = preview(study).to_dict()
    redundancy = json.loads(json.dumps(document, allow_nan=False))["redundancy"]
    assert [site["site"] for site in redundancy["sites"]] == ["act1", "act2"]
    assert [each["name"] for each in redundancy["principles"]] == ["same domain", "same range", "independence"]
    first = {each["name"]: each for each in redundancy["sites"][0]["redundant"]}
    assert first["relu6"]["kind"] == "equal"
    assert first["identity"]["terms"].keys() == {"hard_sigmoid"}
    assert redundancy["sites"][0]["condition_centred"] is None  # relu6 equals relu

    console = Console(width=80, record=True, file=io.StringIO())
    print_preview(document, "nasact search tiny", console)
    text = console.export_text()
    assert max(len(line) for line in text.splitlines()) <= 80
    for part in ("Bank redundancy", "relu6 = relu", "same range   no: relu has [0, inf)", "{drop: aliases}"):
        assert part in " ".join(text.split()) or part in text
    assert "advice" in text
