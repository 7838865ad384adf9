"""The functions that a reading has read, with the calls that surgery exchanges in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from nasact.surgery.locators import Locator
from nasact.surgery.reading.values import FoundSite, Value
from nasact.surgery.source_code import FunctionSource, function_of

Turns = tuple[int, ...]
"""The turn of each loop over modules around an expression, from the outermost to the innermost."""


@dataclass(eq=False)
class CallEdit:
    """One call expression that surgery exchanges.

    `sites`: by turn, the site that it applies; its argument is the node `argument`. `targets`: by turn, the function
    that it calls; `drop_first`: the first argument of the call is the owner itself. `needed`: it
    is exchanged although its only site keeps its attribute.
    """

    argument: int | None = None
    sites: dict[Turns, FoundSite] = field(default_factory=dict)
    targets: dict[Turns, FunctionVersion] = field(default_factory=dict)
    drop_first: bool = False
    needed: bool = False
    loops: tuple[int, ...] = ()


@dataclass(eq=False)
class FunctionVersion:
    """A function as one module calls it.

    `outer`: as found, with its decorators; `source`: of the innermost function. `attribute`: its name on the owner's
    class. `as_method`: False if the owner becomes an additional first parameter. `owner_name`: the parameter that holds
    the owner. `locator`: how to find `outer` again from the owner's class, for pickle; None if that is impossible.
    `loop_lengths`: the turns of each loop over modules. `first_call`: the version, node and turns of the call that
    reaches it under its own name.
    `calls_itself`: a version for one call is also the target of a call in it.
    `taken`: the present settings do not exclude all of its calls. `names`: of a method, all names that its class
    has for it. `compares_class`: a line that compares the class of the owner; 0: none.
    """

    owner: nn.Module
    path: str
    outer: object
    source: FunctionSource
    attribute: str
    owner_name: str
    as_method: bool
    locator: Locator | None
    edits: dict[int, CallEdit] = field(default_factory=dict)
    loop_lengths: dict[int, int] = field(default_factory=dict)
    returned: Value | None = None
    first_call: tuple[int, int, Turns] | None = None
    taken: bool = True
    calls_itself: bool = False
    names: list[str] = field(default_factory=list)
    compares_class: int = 0

    def sites(self) -> list[FoundSite]:
        """The sites of its calls, and those of the functions that it calls, without repetition."""
        found: dict[int, FoundSite] = {}
        visited: set[int] = set()

        def collect(version: FunctionVersion) -> None:
            if id(version) in visited:
                return
            visited.add(id(version))
            for edit in version.edits.values():
                found.update({id(site): site for site in edit.sites.values()})
                for target in edit.targets.values():
                    collect(target)

        collect(self)
        return list(found.values())

    @property
    def function(self) -> Any:
        """The innermost function, a types.FunctionType: a type checker would take that type for a method."""
        return function_of(self.source)
