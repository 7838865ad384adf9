"""The state of reading one function, and what happens to the values in it."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field, replace

from torch import nn

from nasact.surgery.reading.values import ANYTHING, FoundSite, Value, join
from nasact.surgery.reading.versions import FunctionVersion, Turns


@dataclass(eq=False)
class Frame:
    """The state of reading one function.

    `names`: what is known of its local names. `loops`: the loops over modules around the present statement, as indices
    of nodes; `turns`: their present turns. `taken`: False in a branch that the settings of the model exclude.
    `rebound`: the local names whose present values nothing refers to after the statement; None: all. `arguments`: by
    local name, the sites that it was an argument of. `nested`: the code
    of an inner function; `shadowed`: an argument of it has the name of the owner.
    """

    version: FunctionVersion
    names: dict[str, Value]
    loops: tuple[int, ...] = ()
    turns: Turns = ()
    taken: bool = True
    rebound: frozenset[str] | None = frozenset()
    statement: ast.AST | None = None
    arguments: dict[str, list[FoundSite]] = field(default_factory=dict)
    nested: bool = False
    shadowed: bool = False
    returned: list[Value] = field(default_factory=list)

    @property
    def owner(self) -> nn.Module:
        return self.version.owner

    @property
    def path(self) -> str:
        return self.version.path

    def index(self, node: ast.AST) -> int:
        """The index of a node in the function's tree."""
        return self.version.source.index(node)

    def inside(self, *, taken: bool = True, nested: bool = False) -> Frame:
        """A frame for a branch or a nested function, with a copy of the names."""
        return replace(
            self, names=dict(self.names), taken=self.taken and taken, nested=self.nested or nested, rebound=frozenset()
        )

    def merge(self, branches: list[Frame]) -> None:
        """Take over what holds after whichever branch was taken."""
        for name in {name for branch in branches for name in branch.names}:
            values = [branch.names.get(name, ANYTHING) for branch in branches]
            self.names[name] = join(values)


def consume(value: Value, use: str) -> None:
    """Record how the results of sites in `value` are used."""
    for site in value.every_result():
        site.uses.add(use)


def keep(value: Value) -> None:
    """Record that something else may refer to the tensor from now on."""
    if value.storage is not None:
        value.storage.shared = True
    for item in value.items or ():
        keep(item)
