"""Finds a model's activation sites (modules, functional calls, attributes), and the parts that cannot be replaced.

`plan_surgery` also records the location of each site, for surgery.py; `find_sites` returns the public part.
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
from nasact.surgery import torch_activations
from nasact.surgery.channels import Channels, channels_after_node, channels_before_child
from nasact.surgery.torch_activations import FunctionalActivation
from nasact.surgery.trace import TracedForward, find_activation_name, trace

ROOT = "root"
"""Name of the site if the model itself is an activation."""


Role = Literal["activation", "gate", "output", "parameter", "unused"]
"""What the result of a site is for.

"activation": a hidden value. "gate": factors for other values (the sigmoid of squeeze and excitation, of an LSTM cell,
of attention). "output": the model's own output (a final sigmoid). "parameter": a function of parameters, not of data.
"unused": it is not reached with the settings of this model.
"""


@dataclass(frozen=True)
class Site:
    """One place in a model where an activation is applied.

    `function`: the model's own function, as a catalogue name, or "original" if the catalogue does not have it.
    `detail`: how the model's code or printed form writes it. `kind`: a module, a functional call, or an attribute that
    holds a function. `channels`: of its input, as far as known without running the model; None: unknown.
    `role`: only an "activation" is searched by default. `reason`: for another role, why it is no activation; else "".
    """

    name: str
    function: str
    detail: str
    kind: Literal["module", "call", "attribute"]
    channels: Channels | None = None
    role: Role = "activation"
    reason: str = ""


@dataclass(frozen=True)
class Unreachable:
    """A part of the model whose activations cannot be replaced, with the reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class SiteReport:
    """The chosen sites of a model, in the order of its forward, and what is not replaced.

    `gates`: sites of another role than "activation", which are left alone unless `include` gives their full name.
    `unreachable`: parts with activations that cannot be replaced.
    """

    sites: tuple[Site, ...]
    unreachable: tuple[Unreachable, ...]
    gates: tuple[Site, ...] = ()


@dataclass(frozen=True, eq=False)
class SiteLocation:
    """Where surgery installs a site's module: as attribute `key` of `parent` (None: the model is the activation).

    `original`: the model's own activation as a module, not in-place. `nodes`: for an activation in `parent`'s own
    forward, its node in the train graph and its node in the eval graph, or the one node of both; these calls are
    redirected to the attribute.
    """

    parent: nn.Module | None
    key: str
    original: nn.Module
    nodes: tuple[fx.Node, ...] = ()


@dataclass(frozen=True, eq=False)
class SurgeryPlan:
    """Every site of one model object with its location.

    `traced`: by id of a module, the module and the graphs of its forward, which contain the locations' nodes.
    """

    model: nn.Module
    sites: dict[str, tuple[Site, SiteLocation]]
    unreachable: tuple[Unreachable, ...]
    traced: dict[int, tuple[nn.Module, TracedForward]]

    def report(self) -> SiteReport:
        """The public part of the plan."""
        return SiteReport(tuple(site for site, _ in self.sites.values()), self.unreachable)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _activation_nodes(graph: fx.Graph, owner: nn.Module) -> list[fx.Node]:
    return [node for node in graph.nodes if _activation_of_node(node, owner) is not None]


def _activation_of_node(node: fx.Node, owner: nn.Module) -> str | None:
    """The name in torch of the activation that a node applies, "module" for a module; None if it applies none."""
    if node.op == "call_module":
        return "module" if torch_activations.is_activation(owner.get_submodule(str(node.target))) else None
    if node.op == "call_function":
        return torch_activations.activation_of_function(node.target)
    return torch_activations.activation_of_method(str(node.target)) if node.op == "call_method" else None


def works_in_place(node: fx.Node, owner: nn.Module) -> bool:
    """Whether the node of an activation overwrites its input."""
    if node.op == "call_module":
        return bool(getattr(owner.get_submodule(str(node.target)), "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name.endswith("_") or bool(node.kwargs.get("inplace", False))


def site_input(node: fx.Node) -> fx.Node:
    """The input node of an activation's node."""
    source = node.args[0] if node.args else node.kwargs["input"]
    assert isinstance(source, fx.Node)
    return source


def later_users(node: fx.Node, source: fx.Node) -> list[fx.Node]:
    """Users of `source` that come after `node` in the graph."""
    order = {each: index for index, each in enumerate(node.graph.nodes)}
    return [user for user in source.users if order[user] > order[node]]


def out_of_place(module: nn.Module) -> nn.Module:
    """`module` or, if it works in place, a shallow copy that shares its parameters and does not overwrite its input."""
    if not getattr(module, "inplace", False):
        return module
    copied = copy(module)
    copied.inplace = False  # type: ignore[assignment]
    return copied


@dataclass(eq=False)
class _SiteFinder:
    """Walks through a model and collects its sites.

    `visited`: ids of the modules visited so far. `used_attributes`: (id of the parent, attribute) of the sites so far.
    """

    sites: dict[str, tuple[Site, SiteLocation]] = field(default_factory=dict)
    unreachable: list[Unreachable] = field(default_factory=list)
    traced: dict[int, tuple[nn.Module, TracedForward]] = field(default_factory=dict)
    visited: set[int] = field(default_factory=set)
    used_attributes: set[tuple[int, str]] = field(default_factory=set)

    def visit(self, module: nn.Module, path: str) -> None:
        """Add the sites of a module that is no activation itself, and of its children."""
        if id(module) in self.visited:
            return
        self.visited.add(id(module))
        if isinstance(module, torch.jit.ScriptModule):
            self.unreachable.append(
                Unreachable(path or ROOT, "it is compiled (TorchScript), so that nothing in it can be replaced")
            )
        elif isinstance(module, nn.RNNBase | nn.RNNCellBase):
            kind = type(module).__name__
            self.unreachable.append(Unreachable(path, f"nn.{kind} computes its gates inside one fused kernel"))
        elif isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            for index, (name, child) in enumerate(_children(module)):
                self.visit_child(module, name, child, path, channels_before_child(module, index))
        elif str(type(module).forward.__module__).startswith("torch.nn."):
            self.visit_attributes(module, path)
        else:
            self.visit_forward(module, path)

    def visit_child(
        self, parent: nn.Module, name: str, child: nn.Module, path: str, channels: Channels | None = None
    ) -> None:
        """Add the sites of a child that `parent` calls as `self.name`."""
        if torch_activations.is_activation(child):
            self.used_attributes.add((id(parent), name))
            self.add_module(_join(path, name), child, SiteLocation(parent, name, out_of_place(child)), channels)
        else:
            self.visit(child, _join(path, name))

    def visit_attributes(self, module: nn.Module, path: str) -> None:
        """Add the sites of a module whose forward is not traced: its children, and attributes that hold functions."""
        for name, value in list(vars(module).items()):
            activation = torch_activations.activation_of_function(value)
            if activation is not None:
                original = FunctionalActivation(activation, {})
                function = torch_activations.catalogue_name_of_call(activation, {})
                site = Site(_join(path, name), function, f"self.{name}", "attribute")
                self.sites[site.name] = (site, SiteLocation(module, name, original))
        for name, child in _children(module):
            if isinstance(child, nn.ModuleList | nn.ModuleDict):
                self.visit_attributes(child, _join(path, name))
            else:
                self.visit_child(module, name, child, path)

    def visit_forward(self, module: nn.Module, path: str) -> None:
        """Add the sites of a module by tracing its forward or, if it cannot be traced, by its attributes."""
        traced = trace(module)
        nodes: list[tuple[fx.Node, ...]] = []
        if isinstance(traced, TracedForward):
            lists = [_activation_nodes(graph, module) for graph in traced.graphs]
            if len({tuple((node.op, str(node.target)) for node in each) for each in lists}) == 1:
                nodes = list(zip(*lists, strict=True))
            else:
                traced = "its activations differ between train and eval mode"
        if isinstance(traced, str):
            activation = find_activation_name(type(module).forward, type(module))
            if activation:
                reason = f"its forward uses {activation!r} and cannot be traced: {traced}"
                self.unreachable.append(Unreachable(path or ROOT, reason))
            self.visit_attributes(module, path)
            return
        self.traced[id(module)] = (module, traced)
        by_first_node = {each[0]: each for each in nodes}
        for graph in traced.graphs:
            for node in graph.nodes:
                if node in by_first_node:
                    self.add_node(module, by_first_node[node], path)
                elif node.op == "call_module" and _activation_of_node(node, module) is None:
                    self.visit(module.get_submodule(str(node.target)), _join(path, str(node.target)))
                    self.check_in_place_child(node, module, path)
                elif node.op == "call_function":
                    self.check_wrapped_function(node, path)

    def check_in_place_child(self, node: fx.Node, owner: nn.Module, path: str) -> None:
        """Report a child as unreachable if it overwrites its input and the owner reads that input again.

        Surgery installs modules that do not work in place, so that the result would silently differ.
        """
        source = node.args[0] if node.args else None
        child = owner.get_submodule(str(node.target))
        if isinstance(source, fx.Node) and self._overwrites_input(child) and later_users(node, source):
            reason = "it overwrites its input in place, and that input is read again after it: set inplace=False"
            self.unreachable.append(Unreachable(_join(path, str(node.target)), reason))

    def _overwrites_input(self, module: nn.Module) -> bool:
        if torch_activations.is_activation(module):
            return bool(getattr(module, "inplace", False))
        if isinstance(module, nn.Sequential):
            return len(module) > 0 and self._overwrites_input(module[0])
        traced = self.traced.get(id(module))
        nodes = _activation_nodes(traced[1].train, traced[0]) if traced else []
        return any(works_in_place(node, module) and site_input(node).op == "placeholder" for node in nodes)

    def check_wrapped_function(self, node: fx.Node, path: str) -> None:
        """Report a function that applies an activation as unreachable if fx must not trace into it (torch.fx.wrap)."""
        activation = None
        if not str(getattr(node.target, "__module__", "")).startswith(("torch.", "_operator", "operator")):
            activation = find_activation_name(node.target)
        if activation:
            function = getattr(node.target, "__name__", node.target)
            reason = f"{function!r} is a wrapped function that uses {activation!r}"
            self.unreachable.append(Unreachable(path or ROOT, reason))

    def add_node(self, owner: nn.Module, nodes: tuple[fx.Node, ...], path: str) -> None:
        """Add an activation in `owner`'s own forward: a call of a child, of a function, or of a tensor's method."""
        first = nodes[0]
        channels = channels_after_node(site_input(first), owner)
        overwrites = works_in_place(first, owner) and _input_is_read_again(nodes)
        if first.op == "call_module":
            target = str(first.target)
            module = owner.get_submodule(target)
            parent_path, _, key = target.rpartition(".")
            parent = owner.get_submodule(parent_path)
            if (id(parent), key) not in self.used_attributes and not overwrites:
                self.used_attributes.add((id(parent), key))
                location = SiteLocation(parent, key, out_of_place(module))
                self.add_module(_join(path, target), module, location, channels)
                return
            original = out_of_place(module)
            function, detail = torch_activations.catalogue_name_of_module(module), repr(module)
        else:
            activation = _activation_of_node(first, owner)
            assert activation is not None
            settings = torch_activations.call_settings(activation, first.args[1:] if first.args else (), first.kwargs)
            original = FunctionalActivation(activation, settings)
            function, detail = torch_activations.catalogue_name_of_call(activation, settings), activation
            if settings:
                detail += f" {settings}"
        key = first.name if not hasattr(owner, first.name) else f"{first.name}_site"
        kind: Literal["module", "call"] = "module" if first.op == "call_module" else "call"
        site = Site(_join(path, key), function, detail, kind, channels)
        self.sites[site.name] = (site, SiteLocation(owner, key, original, nodes))

    def add_module(self, name: str, module: nn.Module, location: SiteLocation, channels: Channels | None) -> None:
        """Add an activation that is a module."""
        site = Site(name, torch_activations.catalogue_name_of_module(module), repr(module), "module", channels)
        self.sites[name] = (site, location)


def _children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Children by name; unlike in named_children, a module with two names occurs twice."""
    below = module.named_modules(remove_duplicate=False)
    return ((name, child) for name, child in below if name and "." not in name)


def _input_is_read_again(nodes: tuple[fx.Node, ...]) -> bool:
    """Whether a node after the activation reads the activation's input."""
    return any(later_users(node, site_input(node)) for node in nodes)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def plan_surgery(
    model: nn.Module, *, include: Sequence[str] = ("*",), exclude: Sequence[str] = (), partial: bool = False
) -> SurgeryPlan:
    """Find every chosen site of `model` with its location; SurgeryError if a part is unreachable, unless `partial`."""
    finder = _SiteFinder()
    if torch_activations.is_activation(model):
        finder.add_module(ROOT, model, SiteLocation(None, ROOT, out_of_place(model)), None)
    else:
        finder.visit(model, "")
    known = [*finder.sites, *(each.name for each in finder.unreachable)]
    for pattern in (*include, *exclude):
        if pattern != "*" and known and not any(fnmatch.fnmatchcase(name, pattern) for name in known):
            raise SurgeryError(f"site pattern {pattern!r} matches no site.{did_you_mean(pattern, known)}")
    chosen = {
        name: site for name, site in finder.sites.items() if _matches(name, include) and not _matches(name, exclude)
    }
    missed = tuple(u for u in finder.unreachable if _matches(u.name, include) and not _matches(u.name, exclude))
    if missed and not partial:
        listed = "; ".join(f"{each.name!r}: {each.reason}" for each in missed)
        raise SurgeryError(
            f"{len(missed)} part(s) of {type(model).__name__} have activations that cannot be replaced: {listed}. "
            "Exclude them with sites.exclude, or accept partial coverage with sites.partial: true"
        )
    if not chosen:
        raise SurgeryError(f"{type(model).__name__} has no activation site to search" + (" left" if known else ""))
    return SurgeryPlan(model, chosen, missed, finder.traced)


def find_sites(
    model: nn.Module, *, include: Sequence[str] = ("*",), exclude: Sequence[str] = (), partial: bool = True
) -> SiteReport:
    """Find the activation sites of `model`, in the order of its forward, and the parts that cannot be reached.

    `include` and `exclude` are shell patterns for site names. The model is not changed.
    """
    return plan_surgery(model, include=include, exclude=exclude, partial=partial).report()
