"""Code that looks at its own children, parameters or class, and would see what surgery adds to its module."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from torch import nn

from nasact.surgery.reading.function_calls import FunctionCallReader
from nasact.surgery.reading.versions import FunctionVersion

_CHILDREN = frozenset({"children", "named_children", "modules", "named_modules", "_modules"})
_PARAMETERS = frozenset({"parameters", "named_parameters", "state_dict"})


def refuse_what_sees_sites(reader: FunctionCallReader, versions: Sequence[FunctionVersion]) -> None:
    """Refuse the calls of one module whose sites its code would see as further children, or as another class."""
    if not versions:
        return
    owner, path = versions[0].owner, versions[0].path
    for version in versions:
        for line in _reads(version, _PARAMETERS):
            reader.refuse(path, f"line {line}: it reads its own parameters, which those of a mixture would join")
    sites = [site for site in reader.sites if site.owner is owner and (site.kind == "call" or site.shares is not None)]
    if not sites:
        return
    reason = _reason(owner, versions)
    if reason is None:
        return
    for site in sites:
        if site.taken:
            reader.refuse(path, f"{reason} ({site.detail}): put the activation in a module of its own")
    reader.sites[:] = [site for site in reader.sites if site not in sites]
    for version in versions:
        version.edits.clear()


def _reason(owner: nn.Module, versions: Sequence[FunctionVersion]) -> str | None:
    if isinstance(owner, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        return f"it is a {_container(owner)}, whose layers the module of a site would join"
    for version in versions:
        for line in _reads(version, _CHILDREN):
            return f"line {line}: it goes through its own children, which the module of a site would join"
        if version.compares_class:
            return f"line {version.compares_class}: it compares its type, which surgery changes to a subclass"
    return None


def _container(owner: nn.Module) -> str:
    return next(kind.__name__ for kind in (nn.Sequential, nn.ModuleList, nn.ModuleDict) if isinstance(owner, kind))


def _reads(version: FunctionVersion, names: frozenset[str]) -> Iterator[int]:
    """The lines where a function reads such an attribute of its module; `next(self.parameters())` sees one only."""
    first_only = {
        id(argument)
        for node in version.source.nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "next"
        for argument in ast.walk(node)
    }
    for node in version.source.nodes:
        if (
            isinstance(node, ast.Attribute)
            and node.attr in names
            and isinstance(node.value, ast.Name)
            and node.value.id == version.owner_name
            and id(node) not in first_only
        ):
            yield node.lineno
