"""benchmarks/search.py: its statistics, its cases, and the rows that it keeps of earlier runs. No search is run."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import search as ranking
from genotypes import table, task
from merge import keep_cases, merge_groups
from result_tables import Group, Results, Row

from nasact.bilevel import STRATEGIES
from nasact.derivation import DERIVATIONS
from nasact.study import Study
from nasact.training.schedule import Constant, Linear

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "benchmarks" / "genotypes" / "ranking.json"
DRAWS = 2000


def published() -> Results:
    return Results.read(PUBLISHED)


def ranked_rows(results: Results) -> dict[str, Row]:
    return {row.what: row for group in results.groups[:-1] for row in group.rows}


# ---- what is published ------------------------------------------------------------------------------------------


def test_the_ranking_runs_every_strategy_and_every_derivation() -> None:
    assert len(STRATEGIES.names()) >= 11
    assert len(ranking.RANKED_DERIVATIONS) >= 3
    cases = ranking.ranked_by_default()
    assert {ranking.find_case(name).strategy for name in cases} == set(STRATEGIES.names())
    assert {*ranking.RANKED_DERIVATIONS, *ranking.SAME_FUNCTIONS} == set(DERIVATIONS.names())
    assert set(ranking.SAME_FUNCTIONS.values()) <= set(ranking.RANKED_DERIVATIONS)


def test_the_published_ranking_has_every_pair_of_its_cases_and_derivations() -> None:
    """A strategy that is newer than the ranking is missing in it until `make bench-search ONLY=NAME` has run."""
    rows = set(ranked_rows(published()))
    cases = [name for name in ranking.ranked_by_default() if any(row.startswith(f"{name}: ") for row in rows)]
    assert len({ranking.find_case(name).strategy for name in cases}) >= 11
    assert rows >= {f"{case}: {method}" for case in cases for method in ranking.RANKED_DERIVATIONS}


def test_the_default_of_a_study_is_the_best_row() -> None:
    spec = Study.from_tree({"task": {"dataset": "digits", "model": "mlp"}, "search_space": "basic"}).spec
    assert ranking.default_of_a_study() == (spec.search.strategy.name, spec.derive.method.name)
    rows = ranked_rows(published())
    assert min(rows, key=lambda what: rows[what].value) == ": ".join(ranking.default_of_a_study())
    assert [what for what, row in rows.items() if row.verdict] == [": ".join(ranking.default_of_a_study())]


def test_the_published_rows_are_those_of_todays_settings_and_cases(capsys: pytest.CaptureFixture[str]) -> None:
    results = published()
    settings = ranking.run_settings(10, ranking.SETTINGS.epochs, DRAWS)
    kept = keep_cases(PUBLISHED, settings, ["new"], ranking.definition)
    assert set(kept.records) == set(results.cases)
    assert capsys.readouterr().err == ""


# ---- cases ------------------------------------------------------------------------------------------------------


def test_a_registered_strategy_is_a_case_with_the_defaults_of_a_study() -> None:
    assert ranking.find_case("gdas") == ranking.Case("gdas", {}, Linear(10.0, 0.1))
    assert ranking.find_case("fair") == ranking.Case("fair", {}, Constant())
    assert ranking.find_case("joint") == ranking.Case("joint", {}, Constant()), "CASES come first"
    assert ranking.find_case("no such strategy") is None


@pytest.fixture
def newcomers() -> Iterator[None]:
    """Two more registered strategies."""
    with STRATEGIES.temporary():
        for name in ("newcomer", "another"):
            STRATEGIES.register(name, STRATEGIES.get("random"))
        yield


@pytest.mark.usefixtures("newcomers")
def test_a_new_strategy_can_be_run_by_its_registered_name() -> None:
    assert ranking._case_name("newcomer") == "newcomer"
    assert "newcomer" in ranking.ranked_by_default()
    with pytest.raises(argparse.ArgumentTypeError, match=r"registered strategy .*newcomer.*, but got 'newcomr'"):
        ranking._case_name("newcomr")


# ---- rows of earlier runs ---------------------------------------------------------------------------------------


def outcomes(*functions: str) -> list[dict[str, Any]]:
    """Ten made-up searches, all of which derive this genotype at the cost of 3 trainings."""
    derived = {method: {"functions": list(functions), "trainings": 3.0} for method in ranking.RANKED_DERIVATIONS}
    return [{"derived": derived} for _ in range(10)]


def rank_one_case(path: Path, name: str, found: list[dict[str, Any]]) -> Results:
    """What `--only name --json path` writes, for these outcomes."""
    settings = ranking.run_settings(10, ranking.SETTINGS.epochs, DRAWS)
    kept = keep_cases(path, settings, [name], ranking.definition)
    return ranking.build_results({name: found}, kept, settings, {**published().machine, "date": "2030-01-01"})


@pytest.fixture
def without_tpe(monkeypatch: pytest.MonkeyPatch) -> None:
    """TPE takes seconds, and its rows depend on the cost of the best row only."""
    monkeypatch.setattr(ranking, "tpe_search", lambda cost, *_: [float(cost)])


@pytest.mark.usefixtures("newcomers", "without_tpe")
def test_a_run_of_one_case_keeps_the_rows_of_all_others(tmp_path: Path) -> None:
    path = Path(shutil.copy(PUBLISHED, tmp_path / "ranking.json"))
    before = published()
    rank_one_case(path, "newcomer", outcomes("tanh", "tanh", "tanh", "identity")).write(path)
    after = Results.read(path)
    added = {f"newcomer: {method}" for method in ranking.RANKED_DERIVATIONS}
    assert ranked_rows(after).keys() - ranked_rows(before).keys() == added
    assert {what: row for what, row in ranked_rows(after).items() if what not in added} == ranked_rows(before)
    for group in after.groups[:-1]:
        assert [row.value for row in group.rows] == sorted(row.value for row in group.rows)
    # random search at the costs of all cases, with the numbers that were published
    fixed = {row.what: row for row in before.groups[-1].rows if "TPE" not in row.what}
    assert {row.what: row for row in after.groups[-1].rows if "TPE" not in row.what} == fixed
    # the machine of each case is known: the newcomer's is that of this run
    assert "machine" not in after.cases["newcomer"]
    assert all("2026-11-23" in after.cases[name]["machine"] for name in before.cases)

    # a second case, and the first again with a worse genotype: its rows are replaced, all others stay
    rank_one_case(path, "another", outcomes("sin", "sin", "sin", "sin")).write(path)
    rank_one_case(path, "newcomer", outcomes("sigmoid", "sigmoid", "sigmoid", "sigmoid")).write(path)
    last = ranked_rows(Results.read(path))
    assert len(last) == len(ranked_rows(before)) + 2 * len(ranking.RANKED_DERIVATIONS)
    assert last["newcomer: magnitude"].value == 100.0
    assert last["another: magnitude"].shown.startswith("4.3 (sd 0.0)")
    assert all(last[what] == row for what, row in ranked_rows(before).items())


@pytest.mark.usefixtures("newcomers", "without_tpe")
def test_rows_of_other_settings_are_left_out_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(shutil.copy(PUBLISHED, tmp_path / "ranking.json"))
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "settings": {**document["settings"], "epochs": 3}}))
    results = rank_one_case(path, "newcomer", outcomes("sin", "sin", "sin", "sin"))
    assert {what.partition(":")[0] for what in ranked_rows(results)} == {"newcomer"}
    assert list(results.cases) == ["newcomer"]
    said = (
        f"{path}: the rows of {len(document['cases'])} other cases are left out of the new results: epochs was 3 and "
    )
    assert capsys.readouterr().err == said + "is 12 in this run\n"


def test_a_file_without_settings_keeps_nothing_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ranking.json"
    document = json.loads(PUBLISHED.read_text())
    path.write_text(json.dumps({name: document[name] for name in ("script", "machine", "groups", "quick")}))
    assert keep_cases(path, {}, [], ranking.definition).records == {}
    said = f"{path}: its rows are left out of the new results: it does not hold their settings and cases\n"
    assert capsys.readouterr().err == said
    assert keep_cases(tmp_path / "absent.json", {}, [], ranking.definition).records == {}
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("without_tpe")
def test_a_case_that_was_defined_otherwise_is_left_out_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(shutil.copy(PUBLISHED, tmp_path / "ranking.json"))
    document = json.loads(path.read_text())
    document["cases"]["gdas"]["definition"]["temperature"] = "Constant(start=1.0)"
    document["cases"]["gone"] = document["cases"]["fair"]
    path.write_text(json.dumps(document))
    results = rank_one_case(path, "random", outcomes("sin", "sin", "sin", "sin"))
    assert "gdas: magnitude" not in ranked_rows(results)
    assert "joint: magnitude" in ranked_rows(results)
    differs = "temperature was 'Constant(start=1.0)' and is 'Linear(start=10.0, end=0.1)' in this run"
    assert capsys.readouterr().err.splitlines() == [
        f"{path}: the rows of case {case!r} are left out of the new results: {reason}"
        for case, reason in (("gdas", differs), ("gone", "there is no such case any more"))
    ]


def test_groups_are_merged_by_title_and_row() -> None:
    def group(title: str, *names: str, value: float = 0.0) -> Group:
        return Group(title, tuple(Row(what=name, value=value, low=0, high=0) for name in names))

    earlier = [group("one", "a", "b", "c"), group("two", "a")]
    merged = merge_groups(
        earlier, [group("one", "d", "b", value=1.0), group("three", "d")], lambda _, row: row.what != "c"
    )
    assert [(each.title, [(row.what, row.value) for row in each.rows]) for each in merged] == [
        ("one", [("a", 0.0), ("b", 1.0), ("d", 1.0)]),
        ("two", [("a", 0.0)]),
        ("three", [("d", 0.0)]),
    ]
    assert merge_groups(earlier, [group("one", "d")], lambda *_: False) == (group("one", "d"),)


# ---- statistics -------------------------------------------------------------------------------------------------


def test_p_is_small_where_all_are_better_and_a_half_where_nothing_differs() -> None:
    reference = [float(value) for value in range(20, 100)]
    assert ranking.p_value([1.0] * 10, reference) == pytest.approx(1 / (1 + ranking.PERMUTATIONS), abs=1e-3)
    assert 0.4 < ranking.p_value([20.0, 99.0] * 5, reference) < 0.6
    assert ranking.p_value([99.0] * 10, reference) > 0.99


def test_agreement_is_the_share_of_equal_sites() -> None:
    one, other = ("relu", "tanh", "sin", "sin"), ("relu", "relu", "sin", "tanh")
    assert ranking.agreement([one, one, one]) == 1.0
    assert ranking.agreement([one, other]) == 0.5
    assert ranking.agreement([one, one, other]) == pytest.approx((1 + 0.5 + 0.5) / 3)


def test_random_search_is_a_draw_at_cost_1_and_improves_with_its_cost() -> None:
    genotypes = table.Table.load()
    means = [sum(found) / len(found) for found in (ranking.random_search(cost, genotypes, 300) for cost in (1, 5, 25))]
    assert 45 < means[0] < 55
    assert means[0] > means[1] > means[2]
    assert len(task.FUNCTIONS) ** task.SITES == len(genotypes.genotypes)
