"""A study as a tree: defaults, short forms, round trips, fingerprints, keys, and how a study is found by name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nasact.resources import shipped, shipped_names
from nasact.study import Study, TrialSpec
from nasact.study.schema import json_schema

TASK = {"dataset": "digits", "model": "mlp"}
LEAST = {"task": TASK, "search_space": "basic"}
SHIPPED = shipped_names("studies")


def study(**sections: Any) -> Study:
    return Study.from_tree({**LEAST, **sections})


def test_a_study_and_the_library_have_the_same_defaults_of_the_redundancy_check() -> None:
    from nasact.redundancy.inspection import DEFAULT_INPUT_SCALE, DEFAULT_TOLERANCE

    redundancy = study().spec.redundancy
    assert (redundancy.tolerance, redundancy.input_scale) == (DEFAULT_TOLERANCE, DEFAULT_INPUT_SCALE)


def test_defaults_are_filled_in_and_written_down() -> None:
    assert study().tree == {
        "name": "study",
        "seed": 0,
        "task": {
            "dataset": {"name": "digits"},
            "model": {"name": "mlp"},
            "validation": 0.2,
            "train_limit": None,
            "test_limit": None,
        },
        "search_space": ["relu", "tanh", "sigmoid", "identity"],
        "sites": {"include": ["*"], "exclude": [], "partial": False},
        "redundancy": {"drop": "none", "tolerance": 0.01, "input_scale": 8.0},
        "search": {
            "strategy": {"name": "gdas"},
            "regularisers": [],
            "level": "layer",
            "normaliser": "gumbel_hard",
            "kernel": {"name": "auto"},
            "init": "uniform",
            "temperature": {"start": 10.0, "end": 0.1, "schedule": "linear", "scale_alpha_lr": True},
            "epochs": 20,
            "warmup": 0,
            "batch_size": 64,
            "optimiser": {"name": "adam", "lr": 1e-3, "weight_decay": 0.0},
            "monitors": [{"name": "weights"}],
            "on_collapse": "report",
        },
        "derive": {"top_k": 1, "method": {"name": "magnitude"}},
        "retrain": {"epochs": 40, "batch_size": None, "optimiser": None},
        "compare": {"baselines": ["original", "best_single", "random_mixture"], "seeds": 8},
        "outer": {
            "engine": "optuna",
            "sampler": "tpe",
            "pruner": "hyperband",
            "trials": 20,
            "prune_by": "val_accuracy",
        },
    }


@pytest.mark.parametrize(
    ("search", "strategy", "normaliser"),
    [
        ({}, "gdas", "gumbel_hard"),
        ({"epochs": 5}, "gdas", "gumbel_hard"),
        ({"normaliser": "gumbel_hard"}, "gdas", "gumbel_hard"),
        ({"normaliser": "convex"}, "joint", "convex"),
        ({"strategy": "gaea"}, "gaea", "convex"),
        ({"strategy": {"name": "darts", "order": 1}}, "darts", "softmax"),
    ],
    ids=str,
)
def test_default_strategy_is_the_best_that_supports_the_normaliser(
    search: dict[str, Any], strategy: str, normaliser: str
) -> None:
    found = study(search=search).spec.search
    assert (found.strategy.name, found.normaliser) == (strategy, normaliser)


@pytest.mark.parametrize(
    ("search", "start", "end", "schedule"),
    [
        ({}, 10.0, 0.1, "linear"),
        ({"normaliser": "softmax"}, 1.0, 0.05, "exponential"),
        ({"strategy": "joint"}, 1.0, 0.05, "exponential"),
        ({"strategy": "gdas"}, 10.0, 0.1, "linear"),
        ({"strategy": {"name": "gdas", "lr": 0.1}, "temperature": 2.0}, 2.0, None, "constant"),
        ({"strategy": "drnas"}, 1.0, None, "constant"),
        ({"normaliser": "convex"}, 1.0, None, "constant"),  # convex has no temperature
        ({"epochs": 2, "warmup": 1}, 1.0, None, "constant"),  # annealing needs two epochs after the warm-up
        ({"temperature": 1.0}, 1.0, None, "constant"),
    ],
    ids=str,
)
def test_default_temperature_is_the_one_of_the_strategy(
    search: dict[str, Any], start: float, end: float | None, schedule: str
) -> None:
    found = study(search=search).spec.search.temperature
    assert (found.start, found.end, found.schedule) == (start, end, schedule)


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ({"search": {"temperature": 0.5}}, {"search": {"temperature": {"start": 0.5}}}),
        (
            {"search": {"temperature": {"end": 0.1}}},
            {"search": {"temperature": {"end": 0.1, "schedule": "exponential"}}},
        ),
        ({"search": {"strategy": "joint"}}, {"search": {"strategy": {"name": "joint"}}}),
        ({"search": {"optimiser": "sgd"}}, {"search": {"optimiser": {"name": "sgd", "momentum": 0.9}}}),
        ({"search_space": ["swish", "sinu"]}, {"search_space": ["silu", "sin"]}),
        (
            {"search": {"temperature": {"low": 1, "high": 2}}},
            {"search": {"temperature": {"start": {"low": 1.0, "high": 2.0}}}},
        ),
        (
            {"task": {"dataset": {"image_folder": "pictures"}, "model": "mlp"}},
            {"task": {"dataset": {"name": "image_folder", "path": "pictures"}, "model": {"name": "mlp"}}},
        ),
    ],
)
def test_short_form_and_full_form_give_the_same_study(short: dict[str, Any], full: dict[str, Any]) -> None:
    assert study(**short) == study(**full)
    assert study(**short).fingerprint() == study(**full).fingerprint()


SPACE = ["relu", "tanh", "sin", "silu", "elu"]


def scalar_or_domain(values: list[Any]) -> st.SearchStrategy[Any]:
    chosen = st.lists(st.sampled_from(values), min_size=1, unique=True).map(lambda some: {"choice": some})
    return st.sampled_from(values) | chosen


def float_or_range(low: float, high: float) -> st.SearchStrategy[Any]:
    ends = st.tuples(st.floats(low, high), st.floats(low, high)).map(sorted)
    points = st.fixed_dictionaries({}, optional={"points": st.integers(2, 5), "log": st.booleans()})
    return st.floats(low, high) | st.builds(lambda pair, more: {"low": pair[0], "high": pair[1], **more}, ends, points)


def int_or_range(low: int, high: int) -> st.SearchStrategy[Any]:
    ends = st.tuples(st.integers(low, high), st.integers(low, high)).map(sorted)
    return st.integers(low, high) | ends.map(lambda pair: {"low": pair[0], "high": pair[1]})


def mapping(**optional: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=optional)


STUDIES = st.fixed_dictionaries(
    {
        "task": st.fixed_dictionaries(
            {"dataset": st.sampled_from(["digits", {"image_folder": "a b"}, "pkg.data:make"]), "model": st.just("mlp")},
            optional={"validation": float_or_range(0.1, 0.9), "train_limit": st.none() | int_or_range(1, 10_000)},
        ),
        "search_space": st.sampled_from(["basic", SPACE])
        | scalar_or_domain(["basic", "more"])
        | st.integers(1, 5).map(lambda least: {"subset": SPACE, "min": least}),
    },
    optional={
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True),
        "seed": int_or_range(0, 9),
        "sites": mapping(include=st.lists(st.text(min_size=1, max_size=5), max_size=2), partial=st.booleans()),
        "search": mapping(
            strategy=st.fixed_dictionaries(
                {"name": st.just("darts")},
                optional={"order": scalar_or_domain([1, 2]), "lr": float_or_range(1e-4, 1.0)},
            ),
            level=scalar_or_domain(["layer", "channel", "neuron"]),
            temperature=float_or_range(0.1, 5.0)
            | mapping(start=float_or_range(0.1, 5.0), end=float_or_range(0.01, 0.1)),
            epochs=int_or_range(2, 50),  # annealing needs two
            optimiser=mapping(name=scalar_or_domain(["adam", "adamw", "sgd"]), lr=float_or_range(1e-4, 1.0)),
        ),
        "derive": st.just({"top_k": "all"}),
        "retrain": mapping(epochs=int_or_range(1, 50), optimiser=st.none() | st.just("sgd")),
        "compare": mapping(baselines=st.just(["original", "swish"]), seeds=st.integers(1, 9)),
    },
)


@given(STUDIES)
@settings(max_examples=40, deadline=None)
def test_resolved_tree_and_yaml_give_the_same_study(tree: dict[str, Any]) -> None:
    given_ = Study.from_tree(tree)
    for again in (
        Study.from_tree(given_.tree),
        Study.from_yaml(given_.to_yaml()),
        Study.from_tree(json.loads(json.dumps(given_.tree))),
    ):
        assert again == given_
        assert again.tree == given_.tree
        assert list(again.parameters) == list(given_.parameters)
        assert again.fingerprint() == given_.fingerprint()
        assert given_.differences(again.tree) == []


@given(STUDIES)
@settings(max_examples=25, deadline=None)
def test_a_loaded_study_can_be_filled_with_the_extremes_of_its_domains(tree: dict[str, Any]) -> None:
    loaded = Study.from_tree(tree)
    for pick in (0, -1):
        spec = loaded.fill({name: parameter.extremes()[pick] for name, parameter in loaded.parameters.items()})
        assert TrialSpec.model_validate(spec.to_tree()) == spec


def test_spec_cannot_be_changed() -> None:
    spec = study().spec
    with pytest.raises(ValueError, match="frozen"):
        spec.search.epochs = 3


def test_fingerprint_ignores_only_the_keys_that_may_change_between_runs() -> None:
    first = study()
    assert study(outer={"trials": 99}, compare={"seeds": 2, "baselines": ["relu"]}).fingerprint() == first.fingerprint()
    others = [
        study(seed=1),
        study(search={"epochs": 21}),
        study(search={"epochs": {"low": 20, "high": 21}}),
        study(outer={"sampler": "random"}),
        study(derive={"top_k": 2}),
    ]
    assert len({first.fingerprint(), *(other.fingerprint() for other in others)}) == 6


def test_differences_list_the_old_and_the_new_value_of_each_key() -> None:
    old = study(search={"epochs": 20, "strategy": {"name": "darts", "order": 2, "lr": 0.01}}, outer={"trials": 3})
    new = study(search={"epochs": {"low": 5, "high": 30}, "strategy": "darts"}, search_space=["relu", "tanh"])
    assert new.differences(old.tree) == [
        "search_space: ['relu', 'tanh', 'sigmoid', 'identity'] -> ['relu', 'tanh']",
        "search.strategy.order: 2 -> not given",
        "search.strategy.lr: 0.01 -> not given",
        "search.epochs: 20 -> {low: 5, high: 30}",
    ]


def test_key_depends_only_on_what_determines_the_trial() -> None:
    spec = study().spec
    assert len(spec.key()) == 16
    same = study(name="other", outer={"trials": 2, "pruner": "none"}, compare={"seeds": 1}).spec
    assert same.key() == spec.key()
    changed = [study(seed=1), study(derive={"top_k": 2}), study(retrain={"epochs": 1}), study(sites={"partial": True})]
    assert len({spec.key(), *(other.spec.key() for other in changed)}) == 5


def test_all_shipped_studies_load_and_fit_the_schema() -> None:
    assert len(SHIPPED) >= 4
    assert {"digits", "fashion_mnist", "cifar10", "user_template"} <= set(SHIPPED)
    schema = json_schema()
    for name in SHIPPED:
        loaded = Study.load(name)
        assert loaded.name == name
        assert Study.from_yaml(loaded.to_yaml()) == loaded
        jsonschema.validate(loaded.tree, schema)


def test_schema_accepts_short_forms_and_refuses_what_the_study_refuses() -> None:
    schema = json_schema()
    jsonschema.validate({**LEAST, "search": {"temperature": 0.5, "epochs": {"low": 1, "high": 2}}}, schema)
    for wrong in ({**LEAST, "serach": {}}, {"task": TASK}, {**LEAST, "outer": {"trials": {"low": 1, "high": 2}}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_a_name_loads_the_shipped_study_and_a_path_loads_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "task: {dataset: digits, model: mlp}\nsearch_space: basic\n"
    for name in ("digits", "digits.yaml", "mine.yml"):
        (tmp_path / name).write_text(text)
    assert Study.load("digits").parameters
    assert not Study.load("digits.yaml").parameters
    assert not Study.load("./digits").parameters
    assert not Study.load(tmp_path / "digits").parameters
    assert Study.load("mine.yml").name == "mine"


def test_name_key_takes_precedence_over_the_name_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: hers\ntask: {dataset: digits, model: mlp}\nsearch_space: basic\n")
    assert Study.load(path).name == "hers"


def test_study_gets_the_default_name_if_the_file_s_name_is_not_valid(tmp_path: Path) -> None:
    path = tmp_path / "my study.yaml"
    path.write_text("task: {dataset: digits, model: mlp}\nsearch_space: basic\n")
    assert Study.load(path).name == "study"


def test_importing_the_room_does_not_import_torch() -> None:
    code = "import nasact.study, sys; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_template_shows_every_key_with_its_default() -> None:
    def rows(tree: Any, place: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
        if not isinstance(tree, dict) or ("name" in tree and place):
            return {place: tree}
        return {key: value for name, part in tree.items() for key, value in rows(part, (*place, name)).items()}

    # the template states that these two differ from their defaults
    changed = {("name",), ("task", "model")}
    written = rows(yaml.safe_load((shipped("studies") / "user_template.yaml").read_text()))
    template, least = rows(Study.load("user_template").tree), rows(study().tree)
    assert template.keys() == least.keys()
    assert len(template) > 35
    assert {key for key in template if template[key] != least[key]} == changed
    # every key is in the file itself; components only by their names
    assert {key[:2] for key in least} <= {key[:2] for key in written}
