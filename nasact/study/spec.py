"""TrialSpec: everything that decides one trial, as a strict, frozen tree of plain values without search domains.

Errors are pydantic's; `problems` turns them into the lines that users read.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from pydantic import Field, model_validator

from nasact.study.checks import CHECKS
from nasact.study.components import Node, at
from nasact.study.sections import (
    Compare,
    Derive,
    Functions,
    Outer,
    Redundancy,
    Retrain,
    Search,
    Sites,
    Task,
)

NOT_OF_A_TRIAL = ("name", "outer", "compare")
"""The sections that do not change what a trial computes."""


class TrialSpec(Node):
    """One trial, fully decided."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)] = "study"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    task: Task
    search_space: Functions
    sites: Sites = Field(default_factory=Sites)
    redundancy: Redundancy = Field(default_factory=Redundancy)
    search: Search = Field(default_factory=Search)
    derive: Derive = Field(default_factory=Derive)
    retrain: Retrain = Field(default_factory=Retrain)
    compare: Compare = Field(default_factory=Compare)
    outer: Outer = Field(default_factory=Outer)

    @model_validator(mode="after")
    def _sections_agree(self) -> TrialSpec:
        for check in CHECKS:
            conflict = check(self)
            if conflict is not None:
                raise at(conflict.path, conflict.message)
        return self

    def to_tree(self) -> dict[str, Any]:
        """The same as plain JSON types, in the form a study is written in."""
        return self.model_dump(mode="json")

    def key(self) -> str:
        """Equal for two specs exactly if they ask for the same trial: name, outer loop and comparison are left out."""
        deciding = {part: value for part, value in self.to_tree().items() if part not in NOT_OF_A_TRIAL}
        return hashlib.sha256(canonical_json(deciding).encode()).hexdigest()[:16]


def canonical_json(tree: Any) -> str:
    """One text for one tree, whatever the order of its keys."""
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False)
