"""Search domains: their parameters, where they are allowed, and how a sampler's values become a trial."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nasact.errors import StudyError
from nasact.study import Choice, FloatRange, IntRange, Study
from nasact.study.domains import Subset

TASK = {"dataset": "digits", "model": {"name": "mlp", "hidden": [64, 64]}}


def study(**sections: Any) -> Study:
    return Study.from_tree({"task": TASK, "search_space": "basic", **sections})


def only_parameter(**sections: Any) -> Any:
    """The parameter of a study that has exactly one."""
    (parameter,) = study(**sections).parameters.values()
    return parameter


def test_integer_ends_make_an_integer_range() -> None:
    assert only_parameter(search={"epochs": {"low": 5, "high": 25, "step": 10}}) == IntRange(low=5, high=25, step=10)


@pytest.mark.parametrize(
    ("sections", "name"),
    [
        ({"search": {"temperature": {"low": 1, "high": 3}}}, "search.temperature.start"),
        ({"search": {"optimiser": {"lr": {"low": 1, "high": 3}}}}, "search.optimiser.lr"),
        ({"search": {"strategy": {"name": "darts", "lr": {"low": 1, "high": 3}}}}, "search.strategy.lr"),
    ],
)
def test_integer_ends_make_a_float_range_where_the_field_is_a_float(sections: dict[str, Any], name: str) -> None:
    assert study(**sections).parameters == {name: FloatRange(low=1.0, high=3.0)}


def test_options_of_a_model_have_domains_of_their_declared_types() -> None:
    model = {"name": "mlp", "dropout": {"choice": [0.0, 0.5]}, "hidden": [{"low": 16, "high": 64, "log": True}, 64]}
    parameters = study(task={"dataset": "digits", "model": model}).parameters
    assert parameters == {
        "task.model.dropout": Choice((0.0, 0.5)),
        "task.model.hidden.0": IntRange(low=16, high=64, log=True),
    }


def test_choice_between_components_names_and_spaces() -> None:
    both = study(
        task={"dataset": "digits", "model": {"choice": ["mlp", "my_pkg.nets:make"]}},
        search_space={"choice": ["basic", "more"]},
    )
    assert list(both.parameters) == ["task.model.name", "search_space"]
    filled = both.fill({"task.model.name": "my_pkg.nets:make", "search_space": "more"})
    assert filled.task.model.name == "my_pkg.nets:make"
    assert len(filled.search_space) > 4


def test_subset_is_one_flag_per_function_by_canonical_name() -> None:
    subset = study(search_space={"subset": ["relu", "swish", "sin"], "min": 2})
    assert subset.parameters == dict.fromkeys(
        ("search_space.relu", "search_space.silu", "search_space.sin"), Choice((True, False))
    )
    assert subset.spec.search_space == ("relu", "silu", "sin")


def test_subset_of_a_named_space_has_all_its_functions() -> None:
    assert list(study(search_space={"subset": "basic"}).parameters) == [
        f"search_space.{name}" for name in ("relu", "tanh", "sigmoid", "identity")
    ]


FLAGS = ("search_space.relu", "search_space.tanh", "search_space.sin", "search_space.silu")
SUBSET = {"subset": ["relu", "tanh", "sin", "silu"], "min": 2}


@given(st.tuples(*[st.booleans()] * 4))
def test_subset_has_at_least_min_functions_and_keeps_the_chosen_ones(flags: tuple[bool, ...]) -> None:
    chosen = study(search_space=SUBSET).fill(dict(zip(FLAGS, flags, strict=True))).search_space
    on = [name for name, flag in zip(SUBSET["subset"], flags, strict=True) if flag]
    assert len(chosen) == max(2, len(on))
    assert set(on) <= set(chosen)


def test_too_small_subset_is_completed_by_the_first_functions_that_are_off() -> None:
    flags = dict.fromkeys(FLAGS, False) | {"search_space.sin": True}
    assert study(search_space=SUBSET).fill(flags).search_space == ("relu", "sin")


def test_fill_replaces_each_domain_by_its_value() -> None:
    searched = study(
        search={
            "strategy": {"name": "darts", "lr": {"low": 1e-4, "high": 1e-1, "log": True}},
            "temperature": {"start": {"low": 0.5, "high": 2.0}, "end": 0.05},
            "epochs": {"low": 5, "high": 9},
        },
        derive={"top_k": {"choice": [1, 2, "all"]}},
    )
    spec = searched.fill(
        {"search.strategy.lr": 0.02, "search.temperature.start": 1.25, "search.epochs": 6, "derive.top_k": "all"}
    )
    assert spec.search.strategy.options == {"lr": 0.02}
    assert (spec.search.temperature.start, spec.search.temperature.schedule) == (1.25, "exponential")
    assert (spec.search.epochs, spec.derive.top_k) == (6, "all")


def test_fill_of_a_study_without_domains_is_its_spec() -> None:
    assert study().fill({}) == study().spec


@pytest.mark.parametrize(
    ("params", "line"),
    [
        ({}, "search.epochs: no value for this parameter"),
        ({"search.epochs": 10}, "search.epochs: 10 is not within {low: 5, high: 9}"),
        ({"search.epochs": 6.0}, "search.epochs: 6.0 is not within {low: 5, high: 9}"),
        ({"search.epochs": 6, "search.epoch": 6}, "search.epoch: unknown parameter. Did you mean 'search.epochs'?"),
    ],
)
def test_fill_refuses_missing_unknown_and_out_of_range_values(params: dict[str, Any], line: str) -> None:
    with pytest.raises(StudyError) as caught:
        study(search={"epochs": {"low": 5, "high": 9}}).fill(params)
    assert str(caught.value) == line


def test_range_that_leaves_its_field_is_refused_even_if_its_middle_is_valid() -> None:
    with pytest.raises(StudyError, match=r"^task.validation: must be less than 1, but got 1.5: the network"):
        study(task=TASK | {"validation": {"low": 0.1, "high": 1.5}})


def test_choice_of_optimisers_is_valid_although_only_sgd_has_a_momentum() -> None:
    searched = study(search={"optimiser": {"name": {"choice": ["sgd", "adam"]}}})
    assert Study.from_tree(searched.tree) == searched
    assert searched.fill({"search.optimiser.name": "adam"}).search.optimiser.name == "adam"


def test_component_may_have_an_option_with_the_name_of_a_domain_key() -> None:
    spec = study(task={"dataset": {"name": "my_pkg.data:make", "low": 3}, "model": "mlp"}).spec
    assert spec.task.dataset.options == {"low": 3}


def test_points_of_a_logarithmic_grid_are_even_in_the_logarithm() -> None:
    grid = FloatRange(low=1e-4, high=1e-1, log=True, points=4).grid()
    assert grid is not None
    assert grid == pytest.approx((1e-4, 1e-3, 1e-2, 1e-1))
    assert (grid[0], grid[-1]) == (1e-4, 1e-1)
    assert FloatRange(low=0.0, high=1.0).grid() is None
    assert FloatRange(low=0.0, high=1.0, points=3).grid() == (0.0, 0.5, 1.0)
    assert FloatRange(low=2.0, high=2.0).grid() == (2.0,)


ENDS = st.floats(1e-6, 1e6)


@given(ENDS, ENDS, st.booleans(), st.integers(2, 9))
@example(1e6, 999999.9999999999, True, 3)
def test_grid_and_representative_lie_within_the_range(a: float, b: float, log: bool, points: int) -> None:
    domain = FloatRange(low=min(a, b), high=max(a, b), log=log, points=points)
    assert domain.contains(domain.representative())
    grid = domain.grid()
    assert grid is not None
    assert all(domain.contains(value) for value in grid)
    assert math.isclose(domain.representative(), domain.at(0.5))


@given(st.integers(1, 500), st.integers(0, 40), st.integers(1, 9), st.booleans())
def test_representative_of_an_integer_range_is_one_of_its_values(low: int, steps: int, step: int, log: bool) -> None:
    domain = IntRange(low=low, high=low + steps * step, step=1 if log else step, log=log)
    assert domain.contains(domain.representative())
    assert domain.representative() in domain.grid()
    assert all(domain.contains(value) for value in domain.extremes())


def test_choice_distinguishes_true_from_one() -> None:
    assert Choice((1, 2)).contains(1)
    assert not Choice((1, 2)).contains(True)
    assert not Choice((True, False)).contains(1)


def test_every_item_of_a_subset_is_in_one_of_its_smallest_sets() -> None:
    subset = Subset(("a", "b", "c"), 2)
    assert subset.extremes() == (["a", "b", "c"], ["a", "b"], ["a", "b"], ["a", "c"])
