"""What `nasact check` says about activations that are not searched."""

from __future__ import annotations

import io

from rich.console import Console

from nasact.report.coverage import coverage_facts
from nasact.report.terminal import print_preview


def gate(name: str, role: str = "gate", function: str = "sigmoid") -> dict[str, str]:
    reasons = {"gate": "its result only multiplies other values", "unused": "the example input does not reach it"}
    return {"name": name, "function": function, "role": role, "reason": reasons[role], "place": ""}


def covered(*gates: dict[str, str], unreachable: tuple[dict[str, str], ...] = ()) -> list[tuple[str, str]]:
    return coverage_facts({"gates": gates, "unreachable": unreachable, "audit_examples": 2})


def test_equal_gates_share_a_sentence_with_their_number() -> None:
    facts = covered(*(gate(f"blocks.{index}.act") for index in range(16)))
    assert facts[0] == (
        "gate",
        "sigmoid at blocks.0.act, blocks.1.act, blocks.2.act and 13 more: its result only multiplies other values",
    )
    assert [name for name, _ in facts] == ["gate", "to include", "found"]


def test_gates_of_another_role_or_function_have_a_sentence_of_their_own() -> None:
    facts = covered(gate("a"), gate("b", "unused", "tanh"), gate("c"), gate("d", function="hard_sigmoid"))
    assert [(name, fact.partition(":")[0]) for name, fact in facts[:3]] == [
        ("gate", "sigmoid at a, c"),
        ("unused", "tanh at b"),
        ("gate", "hard_sigmoid at d"),
    ]


def test_a_gate_is_included_by_its_full_name_beside_all_activations() -> None:
    facts = dict(covered(gate("spare", "unused"), gate("block.scale")))
    assert facts["to include"].endswith('include: ["*", block.scale]')


def test_each_part_out_of_reach_is_named_with_its_reason() -> None:
    parts = tuple({"name": f"layer{index}", "reason": f"line {index}: why"} for index in range(4))
    facts = covered(unreachable=parts)
    assert [fact for name, fact in facts if name == "out of reach"] == [
        f"layer{index}: line {index}: why" for index in range(4)
    ]
    assert "to include" not in dict(facts)


def test_nothing_left_alone_is_said_too() -> None:
    assert dict(covered())["none"] == "every activation that sites.include and sites.exclude choose is a site"
    assert "2 examples of the data" in dict(covered())["found"]


def test_the_printed_preview_has_the_sites_then_what_is_left_alone() -> None:
    site = {"name": "act1", "function": "relu", "kind": "module", "input": "(N, 8)", "alphas": 4}
    redundancy = {"tolerance": 0.01, "examples": 8, "sites": [], "principles": [], "next": "nothing to do"}
    costs = {"memory": 1, "search_step_seconds": 0.1, "search_steps": 2, "trial_seconds": 3.0, "study_seconds": 4.0}
    preview = {
        "study": "tiny",
        "model": "net",
        "data": "digits",
        "candidates": ["relu"],
        "sites": [{**site, "kernel": "table", "kernel_why": "as requested"}],
        "gates": [gate(f"a.very.long.path.to.block{index}.gate") for index in range(4)],
        "unreachable": [{"name": "rnn", "reason": "nn.LSTM computes its gates inside one fused kernel"}],
        "audit_examples": 2,
        "weights": 1,
        "alphas": 4,
        "train_loss": 1.0,
        "val_loss": None,
        "plan": "1 trial",
        "redundancy": redundancy,
        **costs,
    }
    stream = io.StringIO()
    print_preview(preview, "nasact search tiny", Console(file=stream, width=80))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(stream.getvalue().split())
    assert "gate sigmoid at a.very.long.path.to.block0.gate" in text
    assert "and 1 more: its result only multiplies other values" in text
    assert "out of reach rnn: nn.LSTM computes its gates inside one fused kernel" in text
    assert text.index("act1") < text.index("left alone") < text.index("Bank redundancy")
