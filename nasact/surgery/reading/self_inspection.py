"""Code that looks at its own children, parameters or class, and would see what surgery adds to its module."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from nasact.surgery.reading import resolve
from nasact.surgery.reading.function_calls import FunctionCallReader
from nasact.surgery.reading.values import FoundSite
from nasact.surgery.reading.versions import FunctionVersion

_CHILDREN = frozenset({"children", "named_children", "modules", "named_modules", "_modules"})
_PARAMETERS = frozenset({"parameters", "named_parameters", "state_dict"})


def refuse_what_sees_sites(reader: FunctionCallReader, versions: Sequence[FunctionVersion]) -> None:
    """Refuse the calls of one module whose sites its code would see as further children, or as another class."""
    if not versions:
        return
    owner, path = versions[0].owner, versions[0].path
    below = [site for site in reader.sites if not path or site.name == path or site.name.startswith(f"{path}.")]
    for version in versions:
        lines = list(_reads(version, _PARAMETERS))
        if not lines and _reads_first(version) and _comes_first(owner, below):
            lines = [version.function.__code__.co_firstlineno]
        for line in lines:
            if below:
                reader.refuse(path, f"line {line}: it reads its own parameters, which those of a mixture would join")
                withhold(reader, below)
    sites = [site for site in reader.sites if site.owner is owner and (site.kind == "call" or site.shares is not None)]
    if not sites:
        return
    reason = _reason(owner, versions)
    if reason is None:
        return
    for site in sites:
        if site.taken:
            reader.refuse(path, f"{reason} ({site.detail}): put the activation in a module of its own")
    withhold(reader, sites)


def withhold(reader: FunctionCallReader, sites: Sequence[FoundSite]) -> None:
    """Leave sites out, so that nothing is replaced there."""
    left_out = {id(site) for site in sites}
    reader.sites[:] = [site for site in reader.sites if id(site) not in left_out]
    for version in (version for each in reader.versions.values() for version in each):
        for index, edit in list(version.edits.items()):
            if any(id(site) in left_out for site in edit.sites.values()):
                del version.edits[index]


def _comes_first(owner: nn.Module, sites: Sequence[FoundSite]) -> bool:
    """Whether the first parameter of a module in half precision would be one of a mixture, which is float32."""
    first = next(owner.parameters(), None)
    if first is None or first.dtype not in (torch.float16, torch.bfloat16):
        return False
    held = {id(resolve.children(site.owner).get(site.key)) for site in sites}
    for module in owner.modules():
        if id(module) in held:
            return True
        if next(module.parameters(recurse=False), None) is not None:
            return False
    return False


def _reads_first(version: FunctionVersion) -> bool:
    """Whether a function reads `next(self.parameters())`."""
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "next"
        and any(isinstance(each, ast.Attribute) and each.attr in _PARAMETERS for each in ast.walk(node))
        for node in version.source.nodes
    )


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
