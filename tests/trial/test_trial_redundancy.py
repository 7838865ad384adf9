"""Redundancy in a study: by name, the same when a trial continues, shown in results, figures and by `check`."""

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
from nasact.study import Study, TrialSpec
from nasact.supernet_setup import begin_supernet
from nasact.tasks import Data
from nasact.trial import Report, TrialResult, run_trial

Driver = Callable[..., tuple[list[Report], TrialResult]]
SPACE = ["relu", "relu6", "tanh", "hard_sigmoid", "sin"]
# what an mlp on the digits sees before its first step lies in [-3, 3]: there hard_sigmoid is a straight line
ALIASES = {"search_space": [*SPACE, "identity"], "redundancy": {"drop": "aliases", "input_scale": 1.0}}


def test_a_search_goes_without_what_every_site_has_twice(
    make_spec: Callable[..., TrialSpec], data: Data, driver: Driver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = make_spec(**ALIASES, search={"strategy": "joint", "epochs": 2}, retrain={"epochs": 1})
    with caplog.at_level(logging.WARNING):
        _, whole = driver(run_trial(spec, data))
    assert "without relu6: relu6 = relu" in caplog.text
    left = whole.banks["act1"]
    assert set(left) < set(SPACE)
    assert "relu" in left
    assert "relu6" not in left
    assert set(whole.genotype.functions()) <= set(left)
    assert {len(row) for rows in whole.weights_over_time.values() for row in rows} == {len(left)}
    assert whole.spec["search_space"] == [*SPACE, "identity"]

    # stopped in the search and again in the retraining, and continued
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


def test_what_is_redundant_at_the_start_only_stays(make_spec: Callable[..., TrialSpec], data: Data) -> None:
    spec = make_spec(search_space=[*SPACE, "identity", "elu", "celu"], redundancy={"drop": "aliases"})
    names = begin_supernet(spec, data).mixtures()["act1"].names
    # identity is hard_sigmoid there, but not at wider inputs; relu6 is relu, and celu elu, at those too
    assert names == ("relu", "tanh", "hard_sigmoid", "sin", "identity", "elu")


def test_nothing_is_left_out_unless_it_is_asked_for(make_spec: Callable[..., TrialSpec], data: Data) -> None:
    spec = make_spec(search_space=SPACE)
    assert {m.names for m in begin_supernet(spec, data).mixtures().values()} == {tuple(SPACE)}


def test_what_a_derivation_or_a_regulariser_needs_stays(make_spec: Callable[..., TrialSpec], data: Data) -> None:
    told: list[str] = []
    many = make_spec(**ALIASES, derive={"top_k": 5})
    assert {len(m.names) for m in begin_supernet(many, data, told.append).mixtures().values()} == {5}
    assert "stays: no fewer than 5 candidates may be left" in told[0]
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
def test_a_wrong_node_is_told_with_its_place(node: dict[str, Any], message: str) -> None:
    tree = {"task": {"dataset": "digits", "model": "mlp"}, "search_space": "basic"}
    with pytest.raises(StudyError) as error:
        Study.from_tree({**tree, "redundancy": node})
    assert str(error.value).startswith(message)


def test_check_prints_what_the_sites_have_twice_in_80_columns(make_spec: Callable[..., TrialSpec]) -> None:
    study = Study.from_tree(make_spec(search_space=[*SPACE, "identity"], redundancy={"input_scale": 1}).to_tree())
    seen = preview(study).to_dict()
    document = json.loads(json.dumps(seen, allow_nan=False))["redundancy"]
    assert [site["site"] for site in document["sites"]] == ["act1", "act2"]
    assert [each["name"] for each in document["principles"]] == ["same domain", "same range", "independence"]
    first = {each["name"]: each for each in document["sites"][0]["redundant"]}
    assert first["relu6"]["kind"] == "equal"
    assert first["identity"]["terms"].keys() == {"hard_sigmoid"}
    assert document["sites"][0]["condition_centred"] is None  # relu6 is relu

    console = Console(width=80, record=True, file=io.StringIO())
    print_preview(seen, "nasact search tiny", console)
    text = console.export_text()
    assert max(len(line) for line in text.splitlines()) <= 80
    for part in ("Bank redundancy", "relu6 = relu", "same range   no: relu has [0, inf)", "{drop: aliases}"):
        assert part in " ".join(text.split()) or part in text
    assert "advice" in text
