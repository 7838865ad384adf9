"""How benchmarks/search.py judges: against the table, against chance, and against itself. Searches nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import search as ranking
from genotypes import table, task

from nasact.bilevel import STRATEGIES
from nasact.derivation import DERIVATIONS

ROOT = Path(__file__).resolve().parents[2]


def test_every_strategy_and_every_derivation_is_ranked() -> None:
    assert len(STRATEGIES.names()) == 11
    assert {case.strategy for case in ranking.CASES.values()} == set(STRATEGIES.names())
    assert {*ranking.DERIVATIONS, "refit"} == set(DERIVATIONS.names())
    rows = [row for group in published()["groups"][:-1] for row in group["rows"]]
    assert {row["what"] for row in rows} == {f"{case}: {one}" for case in ranking.CASES for one in ranking.DERIVATIONS}


def published() -> dict[str, list[dict[str, list[dict[str, object]]]]]:
    found: dict[str, list[dict[str, list[dict[str, object]]]]] = json.loads(
        (ROOT / "benchmarks/genotypes/ranking.json").read_text()
    )
    return found


def test_the_default_of_a_study_is_what_won() -> None:
    from nasact.study import Study

    spec = Study.from_tree({"task": {"dataset": "digits", "model": "mlp"}, "search_space": "basic"}).spec
    case, method = ranking.WINNER
    assert (spec.search.strategy.name, spec.derive.method.name) == (ranking.CASES[case].strategy, method)
    rows = [row for group in published()["groups"][:-1] for row in group["rows"]]
    assert min(rows, key=lambda row: float(str(row["value"])))["what"] == f"{case}: {method}"


def test_p_is_small_where_all_are_better_and_a_half_where_nothing_differs() -> None:
    under = [float(value) for value in range(20, 100)]
    assert ranking.chance([1.0] * 10, under) == pytest.approx(1 / (1 + ranking.DRAWS), abs=1e-3)
    assert 0.4 < ranking.chance([20.0, 99.0] * 5, under) < 0.6
    assert ranking.chance([99.0] * 10, under) > 0.99


def test_searches_agree_by_the_share_of_their_sites() -> None:
    one, other = ("relu", "tanh", "sin", "sin"), ("relu", "relu", "sin", "tanh")
    assert ranking.agreement([one, one, one]) == 1.0
    assert ranking.agreement([one, other]) == 0.5
    assert ranking.agreement([one, one, other]) == pytest.approx((1 + 0.5 + 0.5) / 3)


def test_random_search_is_a_draw_at_cost_1_and_better_the_more_it_may_train() -> None:
    judged = table.Table.load()
    means = [sum(places) / len(places) for places in (ranking.best_of(cost, judged, 300) for cost in (1, 5, 25))]
    assert 45 < means[0] < 55
    assert means[0] > means[1] > means[2]
    assert len(task.FUNCTIONS) ** task.SITES == len(judged.genotypes)
