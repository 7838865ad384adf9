"""The estimates of `nasact check`."""

from __future__ import annotations

import gated_net
import pytest

from nasact.errors import StudyError, SurgeryError
from nasact.outer.preview import Preview, preview
from nasact.study import Study


def study(method: str = "magnitude", **search: object) -> Study:
    return Study.from_tree(
        {
            "task": {"dataset": "digits", "model": {"name": "mlp", "hidden": [8, 8]}, "train_limit": 100},
            "search_space": ["tanh", "silu"],
            "search": {"epochs": 4, "strategy": "joint", "kernel": "reference", **search},
            "derive": {"method": method},
        }
    )


def test_a_derivation_that_trains_is_part_of_a_trials_time() -> None:
    assert preview(study()).cost.derive_seconds == 0
    cost = preview(study("refit")).cost
    assert 0 < cost.derive_seconds < cost.trial_seconds - cost.search_steps * cost.search_step_seconds


def test_a_schedule_with_more_stages_than_steps_is_refused_before_the_search() -> None:
    with pytest.raises(StudyError, match="each of the 4 stages gets no step: the search has 4 after its warm-up"):
        preview(study(strategy="shrink", batch_size=100))


def test_the_document_has_the_costs_next_to_the_other_fields() -> None:
    document = preview(study()).to_dict()
    costs = ["memory", "search_step_seconds", "search_steps", "derive_seconds", "trial_seconds", "study_seconds"]
    assert list(document)[-8:] == [*costs, "plan", "redundancy"]
    assert "cost" not in document


def gated(**sites: object) -> Preview:
    """The preview of a study of a model with gates."""
    tree = {
        "task": {"dataset": "digits", "model": "gated_net:make_net", "train_limit": 100},
        "search_space": ["tanh", "silu"],
        "search": {"epochs": 2, "strategy": "joint", "kernel": "reference"},
        "sites": {"partial": True, **sites},
    }
    return preview(Study.from_tree(tree))


def test_what_is_left_alone_is_listed_with_its_role_and_reason() -> None:
    document = gated().to_dict()
    relus = [f"blocks.{index}.relu" for index in range(5)]
    assert [site["name"] for site in document["sites"]] == ["gelu", "silu", *relus]
    gates = {gate["name"]: gate for gate in document["gates"]}
    roles = {name: (gate["function"], gate["role"]) for name, gate in gates.items()}
    assert roles == {
        "softplus": ("softplus", "parameter"),
        "tanh": ("tanh", "unused"),
        "sigmoid": ("sigmoid", "output"),
        **{f"blocks.{index}.sigmoid": ("sigmoid", "gate") for index in range(5)},
    }
    assert gates["tanh"]["reason"] == "the example input does not reach it"
    assert all(gate["reason"] for gate in gates.values())
    assert gates["tanh"]["place"].startswith(f"{gated_net.__file__}:")
    (out_of_reach,) = document["unreachable"]
    assert out_of_reach["name"] == "root"
    assert "nn.ModuleList" in out_of_reach["reason"]
    assert document["audit_examples"] == 2


def test_a_gate_that_is_included_by_its_name_is_a_site() -> None:
    document = gated(include=["*", "blocks.3.sigmoid"]).to_dict()
    sites = {site["name"]: site for site in document["sites"]}
    assert sites["blocks.3.sigmoid"]["input"] == "(N, 8)"
    assert "blocks.3.sigmoid" not in [gate["name"] for gate in document["gates"]]
    assert len(document["gates"]) == 7


def test_a_site_that_the_data_do_not_reach_is_refused_if_it_is_included() -> None:
    with pytest.raises(SurgeryError, match="site 'tanh': its alpha got no gradient"):
        gated(include=["*", "tanh"])


def test_the_input_of_a_site_that_acts_in_one_mode_only_is_known() -> None:
    inputs = {site["name"]: site["input"] for site in gated().sites}
    assert inputs["silu"] == "(N, 8)"
    assert inputs["blocks.0.relu"] == "(N, 4)"


def test_the_shapes_of_inputs_need_one_pass_in_eval_mode() -> None:
    """The other passes belong to the two models that are built: each is checked and audited once."""
    gated_net.FORWARDS["eval"] = 0
    gated()
    assert gated_net.FORWARDS["eval"] == 1 + 2 * 2


def test_a_part_out_of_reach_is_refused_unless_the_study_accepts_it() -> None:
    with pytest.raises(SurgeryError, match=r"self\.listed is a list that holds activations"):
        gated(partial=False)
