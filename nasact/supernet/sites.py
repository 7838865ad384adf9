"""Finding a model's activation sites: modules, functional calls, attributes; and what could not be reached.

`find_plan` also records where each site is, for surgery.py; `find_sites` is the public view of it.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import fx, nn

from nasact.errors import SurgeryError, did_you_mean
from nasact.supernet import originals
from nasact.supernet.channels import Channels, after_node, before_child
from nasact.supernet.originals import Call
from nasact.supernet.trace import Traced, mentions_activation, trace

ROOT = "root"
"""The site's name where the model itself is an activation."""


@dataclass(frozen=True)
class Site:
    """One place in a model where an activation is applied.

    `function` is the model's own (a catalogue name, or "original" where the catalogue lacks it), `detail` how the model
    spells it, `kind` how it is reached, `channels` what is known of its input without running the model.
    """

    name: str
    function: str
    detail: str
    kind: Literal["module", "call", "attribute"]
    channels: Channels | None = None


@dataclass(frozen=True)
class Unreachable:
    """A part of the model that applies activations which cannot be replaced, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class SiteReport:
    sites: tuple[Site, ...]
    unreachable: tuple[Unreachable, ...]


@dataclass(frozen=True, eq=False)
class Place:
    """Where surgery puts a site's module: an attribute `key` of `parent`; with `nodes`, calls in `parent`'s own forward
    (one node in the train graph and one in the eval graph, or one in both) are redirected to that attribute."""

    parent: nn.Module | None
    key: str
    original: nn.Module
    nodes: tuple[fx.Node, ...] = ()


@dataclass(frozen=True, eq=False)
class Plan:
    """Every site of one model object with its place; `traced`: the graphs its nodes belong to, by id of the module."""

    model: nn.Module
    sites: dict[str, tuple[Site, Place]]
    unreachable: tuple[Unreachable, ...]
    traced: dict[int, tuple[nn.Module, Traced]]

    def report(self) -> SiteReport:
        return SiteReport(tuple(site for site, _ in self.sites.values()), self.unreachable)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _activation_nodes(graph: fx.Graph, owner: nn.Module) -> list[fx.Node]:
    return [node for node in graph.nodes if _spelling(node, owner) is not None]


def _spelling(node: fx.Node, owner: nn.Module) -> str | None:
    if node.op == "call_module":
        return "module" if originals.is_activation(owner.get_submodule(str(node.target))) else None
    if node.op == "call_function":
        return originals.function_name(node.target)
    return originals.method_name(str(node.target)) if node.op == "call_method" else None


def works_in_place(node: fx.Node, owner: nn.Module) -> bool:
    """Whether an activation's node overwrites its input."""
    if node.op == "call_module":
        return bool(getattr(owner.get_submodule(str(node.target)), "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name.endswith("_") or bool(node.kwargs.get("inplace", False))


def site_input(node: fx.Node) -> fx.Node:
    """The node whose value an activation's node is applied to."""
    source = node.args[0] if node.args else node.kwargs["input"]
    assert isinstance(source, fx.Node)
    return source


def later_users(node: fx.Node, source: fx.Node) -> list[fx.Node]:
    """Users of `source` that come after `node` in the graph."""
    order = {each: index for index, each in enumerate(node.graph.nodes)}
    return [user for user in source.users if order[user] > order[node]]


def out_of_place(module: nn.Module) -> nn.Module:
    """`module`, or a twin that shares its parameters and does not overwrite its input."""
    if not getattr(module, "inplace", False):
        return module
    twin = copy(module)
    twin.inplace = False  # type: ignore[assignment]
    return twin


@dataclass(eq=False)
class _Finder:
    sites: dict[str, tuple[Site, Place]] = field(default_factory=dict)
    unreachable: list[Unreachable] = field(default_factory=list)
    traced: dict[int, tuple[nn.Module, Traced]] = field(default_factory=dict)
    visited: set[int] = field(default_factory=set)
    slots: set[tuple[int, str]] = field(default_factory=set)

    def visit(self, module: nn.Module, path: str) -> None:
        if id(module) in self.visited:
            return
        self.visited.add(id(module))
        if isinstance(module, torch.jit.ScriptModule):
            self.unreachable.append(
                Unreachable(path or ROOT, "it is compiled (TorchScript): nothing in it can be replaced")
            )
        elif isinstance(module, nn.RNNBase | nn.RNNCellBase):
            kind = type(module).__name__
            self.unreachable.append(Unreachable(path, f"nn.{kind} computes its gates inside one fused kernel"))
        elif isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            for index, (name, child) in enumerate(_children(module)):
                self.child(module, name, child, path, before_child(module, index))
        elif str(type(module).forward.__module__).startswith("torch.nn."):
            self.opaque(module, path)
        else:
            self.own_forward(module, path)

    def child(
        self, parent: nn.Module, name: str, child: nn.Module, path: str, channels: Channels | None = None
    ) -> None:
        """A child that `parent` calls, in place."""
        if originals.is_activation(child):
            self.slots.add((id(parent), name))
            self.add(_join(path, name), child, "module", Place(parent, name, out_of_place(child)), channels)
        else:
            self.visit(child, _join(path, name))

    def opaque(self, module: nn.Module, path: str) -> None:
        """A module whose forward is not read: its children, and functions it holds as attributes."""
        for name, value in list(vars(module).items()):
            spelled = originals.function_name(value)
            if spelled is not None:
                original = Call(spelled, {})
                site = Site(_join(path, name), originals.call_function(spelled, {}), f"self.{name}", "attribute")
                self.sites[site.name] = (site, Place(module, name, original))
        for name, child in _children(module):
            if isinstance(child, nn.ModuleList | nn.ModuleDict):
                self.opaque(child, _join(path, name))
            else:
                self.child(module, name, child, path)

    def own_forward(self, module: nn.Module, path: str) -> None:
        """A module with a forward of its own: read it by tracing."""
        traced = trace(module)
        nodes: list[tuple[fx.Node, ...]] = []
        if isinstance(traced, Traced):
            lists = [_activation_nodes(graph, module) for graph in traced.graphs]
            if len({tuple((node.op, str(node.target)) for node in each) for each in lists}) == 1:
                nodes = list(zip(*lists, strict=True))
            else:
                traced = "its activations differ between train and eval mode"
        if isinstance(traced, str):
            named = mentions_activation(type(module).forward, type(module))
            if named:
                reason = f"its forward uses {named!r} and cannot be read: {traced}"
                self.unreachable.append(Unreachable(path or ROOT, reason))
            self.opaque(module, path)
            return
        self.traced[id(module)] = (module, traced)
        by_first = {each[0]: each for each in nodes}
        for graph in traced.graphs:
            for node in graph.nodes:
                if node in by_first:
                    self.node(module, by_first[node], path)
                elif node.op == "call_module" and _spelling(node, module) is None:
                    self.visit(module.get_submodule(str(node.target)), _join(path, str(node.target)))
                    self.overwriting(node, module, path)
                elif node.op == "call_function":
                    self.hidden(node, path)

    def overwriting(self, node: fx.Node, owner: nn.Module, path: str) -> None:
        """A child that overwrites its input in place where the owner reads that input again: the result of surgery,
        which is out of place, would silently differ."""
        source = node.args[0] if node.args else None
        child = owner.get_submodule(str(node.target))
        if isinstance(source, fx.Node) and self._overwrites_input(child) and later_users(node, source):
            reason = "it overwrites its input in place, and that input is read again after it: set inplace=False"
            self.unreachable.append(Unreachable(_join(path, str(node.target)), reason))

    def _overwrites_input(self, module: nn.Module) -> bool:
        if originals.is_activation(module):
            return bool(getattr(module, "inplace", False))
        if isinstance(module, nn.Sequential):
            return len(module) > 0 and self._overwrites_input(module[0])
        traced = self.traced.get(id(module))
        nodes = _activation_nodes(traced[1].train, traced[0]) if traced else []
        return any(works_in_place(node, module) and site_input(node).op == "placeholder" for node in nodes)

    def hidden(self, node: fx.Node, path: str) -> None:
        """A function that fx was told not to look into (torch.fx.wrap)."""
        named = None
        if not str(getattr(node.target, "__module__", "")).startswith(("torch.", "_operator", "operator")):
            named = mentions_activation(node.target)
        if named:
            reason = f"{getattr(node.target, '__name__', node.target)!r} is a wrapped function that uses {named!r}"
            self.unreachable.append(Unreachable(path or ROOT, reason))

    def node(self, owner: nn.Module, nodes: tuple[fx.Node, ...], path: str) -> None:
        """An activation in `owner`'s own forward: a call of a child, of a function, or of a tensor's method."""
        first = nodes[0]
        channels = after_node(site_input(first), owner)
        overwrites = works_in_place(first, owner) and _outlives(nodes)
        if first.op == "call_module":
            target = str(first.target)
            module = owner.get_submodule(target)
            parent_path, _, key = target.rpartition(".")
            parent = owner.get_submodule(parent_path)
            if (id(parent), key) not in self.slots and not overwrites:
                self.slots.add((id(parent), key))
                self.add(_join(path, target), module, "module", Place(parent, key, out_of_place(module)), channels)
                return
            original, function, detail = out_of_place(module), originals.module_function(module), repr(module)
        else:
            spelled = _spelling(first, owner)
            assert spelled is not None
            settings = originals.call_settings(spelled, first.args[1:] if first.args else (), first.kwargs)
            original, function, detail = Call(spelled, settings), originals.call_function(spelled, settings), spelled
            if settings:
                detail += f" {settings}"
        key = first.name if not hasattr(owner, first.name) else f"{first.name}_site"
        kind: Literal["module", "call"] = "module" if first.op == "call_module" else "call"
        site = Site(_join(path, key), function, detail, kind, channels)
        self.sites[site.name] = (site, Place(owner, key, original, nodes))

    def add(
        self, name: str, module: nn.Module, kind: Literal["module"], place: Place, channels: Channels | None
    ) -> None:
        site = Site(name, originals.module_function(module), repr(module), kind, channels)
        self.sites[name] = (site, place)


def _children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Children by name; unlike named_children, one module under two names comes twice."""
    return ((name, child) for name, child in module._modules.items() if child is not None)


def _outlives(nodes: tuple[fx.Node, ...]) -> bool:
    """Whether an activation's input is read again after it."""
    return any(later_users(node, site_input(node)) for node in nodes)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def find_plan(
    model: nn.Module, *, include: Sequence[str] = ("*",), exclude: Sequence[str] = (), partial: bool = False
) -> Plan:
    """Every chosen site of `model` and where it is; SurgeryError where a part is out of reach, unless `partial`."""
    finder = _Finder()
    if originals.is_activation(model):
        finder.add(ROOT, model, "module", Place(None, ROOT, out_of_place(model)), None)
    else:
        finder.visit(model, "")
    known = [*finder.sites, *(each.name for each in finder.unreachable)]
    for pattern in (*include, *exclude):
        if pattern != "*" and known and not any(fnmatch.fnmatchcase(name, pattern) for name in known):
            raise SurgeryError(f"site pattern {pattern!r} matches no site.{did_you_mean(pattern, known)}")
    chosen = {
        name: each for name, each in finder.sites.items() if _matches(name, include) and not _matches(name, exclude)
    }
    missed = tuple(u for u in finder.unreachable if _matches(u.name, include) and not _matches(u.name, exclude))
    if missed and not partial:
        listed = "; ".join(f"{each.name!r}: {each.reason}" for each in missed)
        raise SurgeryError(
            f"{len(missed)} part(s) of {type(model).__name__} hold activations out of reach: {listed}. "
            "Leave them as they are with sites.exclude, or accept partial coverage with sites.partial: true"
        )
    if not chosen:
        raise SurgeryError(f"{type(model).__name__} has no activation site to search" + (" left" if known else ""))
    return Plan(model, chosen, missed, finder.traced)


def find_sites(
    model: nn.Module, *, include: Sequence[str] = ("*",), exclude: Sequence[str] = (), partial: bool = True
) -> SiteReport:
    """The activation sites of `model`, in the order in which its forward applies them, and what could not be reached.

    `include` and `exclude` are shell patterns over site names. The model is not changed.
    """
    return find_plan(model, include=include, exclude=exclude, partial=partial).report()
