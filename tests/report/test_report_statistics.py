"""Statistics against scipy, brute force and hand calculation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from nasact.report.statistics import (
    BETTER,
    UNDECIDED,
    WORSE,
    ci95,
    compare_variants,
    holm,
    mean,
    paired_permutation_test,
    seeds_needed,
    smallest_p,
    std,
)

accuracies = st.integers(0, 360).map(lambda correct: correct / 360)


def pairs(low: int = 1, high: int = 8) -> st.SearchStrategy[tuple[list[float], list[float]]]:
    pair = st.tuples(accuracies, accuracies)
    return st.lists(pair, min_size=low, max_size=high).map(lambda rows: tuple(map(list, zip(*rows, strict=True))))


def brute_force(a: list[float], b: list[float]) -> float:
    """The same p-value in integer arithmetic, in which rounding cannot hide a tie."""
    differences = [round((x - y) * 360) for x, y in zip(a, b, strict=True)]
    observed = abs(sum(differences))
    patterns = list(itertools.product((1, -1), repeat=len(differences)))
    extreme = sum(abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= observed for signs in patterns)
    return extreme / len(patterns)


@given(st.lists(accuracies, min_size=2, max_size=20))
def test_mean_std_and_interval_agree_with_numpy_and_scipy(values):
    assert mean(values) == pytest.approx(np.mean(values), abs=1e-12)
    assert std(values) == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    if len(set(values)) > 1:
        expected = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
        assert ci95(values) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_one_value_has_no_spread_and_no_interval():
    assert (mean([0.9]), std([0.9]), ci95([0.9])) == (0.9, 0.0, None)


def test_equal_values_have_an_interval_of_width_zero():
    assert ci95([0.5, 0.5, 0.5]) == (0.5, 0.5)


@given(pairs())
def test_permutation_test_agrees_with_brute_force(pair):
    a, b = pair
    assert paired_permutation_test(a, b) == pytest.approx(brute_force(a, b), abs=1e-15)


@pytest.mark.parametrize("n", [4, 7, 10])
def test_permutation_test_agrees_with_scipy(n):
    generator = np.random.default_rng(n)
    a, b = generator.normal(0.5, 1.0, n), generator.normal(0.0, 1.0, n)
    expected = scipy.stats.permutation_test(
        (a, b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", n_resamples=np.inf
    )
    assert paired_permutation_test(list(a), list(b)) == pytest.approx(expected.pvalue, abs=1e-12)


@given(pairs(), st.randoms(use_true_random=False))
def test_permutation_test_ignores_the_order_of_seeds_and_the_sign(pair, random):
    a, b = pair
    order = list(range(len(a)))
    random.shuffle(order)
    p = paired_permutation_test(a, b)
    assert paired_permutation_test(b, a) == p
    assert paired_permutation_test([a[i] for i in order], [b[i] for i in order]) == p
    assert smallest_p(len(a)) <= p <= 1.0


@given(pairs(high=6), accuracies)
def test_a_seed_without_a_difference_does_not_change_p(pair, tie):
    a, b = pair
    assert paired_permutation_test([*a, tie], [*b, tie]) == paired_permutation_test(a, b)


def test_p_is_one_if_all_pairs_are_ties():
    assert paired_permutation_test([0.9] * 5, [0.9] * 5) == 1.0
    assert paired_permutation_test([0.9] * 30, [0.9] * 30) == 1.0


@pytest.mark.parametrize("n", range(1, 17))
def test_smallest_p_is_reached_when_every_seed_agrees(n):
    a = [0.9 + 0.001 * i for i in range(n)]
    assert paired_permutation_test(a, [0.5] * n) == smallest_p(n)
    assert smallest_p(n) == 2 / 2**n


def test_monte_carlo_agrees_with_the_exact_test():
    generator = np.random.default_rng(3)
    a, b = list(generator.normal(0.4, 1.0, 17)), [0.0] * 17
    sums = np.array([0.0])
    for value in a:
        sums = np.concatenate([sums + value, sums - value])
    exact = np.mean(np.abs(sums) >= abs(sum(a)) - 1e-9)
    p = paired_permutation_test(a, b)
    assert p == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / 100_000))
    assert p == paired_permutation_test(a, b), "the seed is fixed"
    assert paired_permutation_test([1.0] * 40, [0.0] * 40, resamples=999) == 1 / 1000, "never zero"


def test_under_the_null_hypothesis_the_rate_of_false_positives_is_at_most_the_level():
    generator = np.random.default_rng(0)
    draws = generator.normal(size=(400, 8))
    hits = sum(paired_permutation_test(list(row), [0.0] * 8) < 0.05 for row in draws)
    assert hits / 400 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_order_and_is_never_below_p(pvalues):
    adjusted = holm(pvalues)
    for p, q in zip(pvalues, adjusted, strict=True):
        assert p <= q <= 1.0
        assert q <= min(1.0, len(pvalues) * max(pvalues)) + 1e-12
    ranked = sorted(range(len(pvalues)), key=lambda i: pvalues[i])
    assert [adjusted[i] for i in ranked] == sorted(adjusted)
    # The definition: the hypothesis at rank r is rejected at level q exactly if all earlier ones are.
    for rank, index in enumerate(ranked):
        steps = [(len(pvalues) - r) * pvalues[ranked[r]] for r in range(rank + 1)]
        assert adjusted[index] == pytest.approx(min(1.0, max(steps)))


@settings(max_examples=200)
@given(pairs(low=1, high=9), st.lists(st.integers(0, 8), min_size=1, max_size=3))
def test_a_difference_that_is_not_significant_is_never_called_a_gain(pair, shifts):
    derived, base = pair
    others = {f"other{i}": base[s % len(base) :] + base[: s % len(base)] for i, s in enumerate(shifts)}
    for contrast in compare_variants(derived, others):
        significant = contrast.p_holm < 0.05
        assert (contrast.verdict in (BETTER, WORSE)) == significant
        assert ("better" in contrast.text or "worse" in contrast.text) == significant
        if contrast.verdict == BETTER:
            assert contrast.difference > 0
        if contrast.verdict == WORSE:
            assert contrast.difference < 0
        assert contrast.ci95 is None or contrast.ci95[0] <= contrast.difference <= contrast.ci95[1]


def test_the_verdict_of_five_seeds_says_that_they_are_too_few():
    (contrast,) = compare_variants([0.9, 0.91, 0.92, 0.93, 0.94], {"relu": [0.1] * 5})
    assert contrast.p == 0.0625
    assert contrast.verdict == UNDECIDED
    assert contrast.text == "too few seeds to tell (smallest possible p = 0.06)"
    assert contrast.too_few_seeds


def test_holm_may_need_more_seeds_than_one_test():
    derived = [0.9 + 0.001 * i for i in range(6)]
    alone = compare_variants(derived, {"relu": [0.1] * 6})
    three = compare_variants(derived, {name: [0.1] * 6 for name in ("relu", "best", "random")})
    assert alone[0].verdict == BETTER
    assert {c.text for c in three} == {"too few seeds to tell (smallest possible Holm p = 0.09)"}
    assert (seeds_needed(1), seeds_needed(3)) == (6, 7)


def test_equal_networks_are_the_same_in_every_seed():
    (contrast,) = compare_variants([0.9, 0.8, 0.7], {"best_single": [0.9, 0.8, 0.7]})
    assert (contrast.p, contrast.difference, contrast.verdict) == (1.0, 0.0, UNDECIDED)
    assert contrast.text == "the same in every seed"


def test_enough_seeds_decide_both_ways():
    good, bad = [0.9 + 0.001 * i for i in range(8)], [0.5 + 0.002 * i for i in range(8)]
    assert [c.verdict for c in compare_variants(good, {"a": bad, "b": bad})] == [BETTER, BETTER]
    assert [c.verdict for c in compare_variants(bad, {"a": good, "b": bad[::-1]})] == [WORSE, UNDECIDED]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean([]), "got none"),
        (lambda: mean([float("nan")]), "finite"),
        (lambda: paired_permutation_test([1.0], [1.0, 2.0]), "1 and 2 values"),
        (lambda: smallest_p(0), "n >= 1"),
    ],
    ids=["empty", "nan", "unpaired", "no seeds"],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
