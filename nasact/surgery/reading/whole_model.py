"""Reads a whole model and names its sites; also what no code calls in a way that is read: hooks, attributes, lists."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import math
import re
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import fx, nn
from torch.nn.utils.parametrize import ParametrizationList

from nasact.reserved_names import ORIGINAL
from nasact.surgery import torch_activations
from nasact.surgery.reading import resolve
from nasact.surgery.reading.call_sites import Applied, Refusal, name_of
from nasact.surgery.reading.children import join_path
from nasact.surgery.reading.evidence import activation_in
from nasact.surgery.reading.frame import consume
from nasact.surgery.reading.graphs import read_graph
from nasact.surgery.reading.model import ModelReader
from nasact.surgery.reading.self_inspection import refuse_what_sees_sites, withhold
from nasact.surgery.reading.values import ANYTHING, FoundSite, Slot, Value
from nasact.surgery.reading.versions import FunctionVersion
from nasact.surgery.torch_activations import FunctionalActivation
from nasact.surgery.user_function import UserFunction

_HOOKS = {
    "_forward_hooks": "a forward hook",
    "_forward_pre_hooks": "a forward pre-hook",
}
_LOOKS_AT_CHILDREN = frozenset({"children", "named_children", "modules", "named_modules", "_modules", "get_submodule"})
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_MODULE_STATE = frozenset(vars(nn.Module()))


@dataclass(frozen=True, eq=False)
class Reading:
    """All sites of a model in the order of its forward, what is out of reach, and the functions to rewrite.

    `versions`: by id of a module, its functions. `root`: the site if the model itself is an activation.
    """

    sites: tuple[FoundSite, ...]
    refusals: tuple[Refusal, ...]
    versions: dict[int, list[FunctionVersion]]
    root: FoundSite | None = None


def read_model(model: nn.Module) -> Reading:
    """Find every activation of a model by reading its code. The model does not run, and is not changed."""
    reader = WholeModelReader(model)
    applied = reader.applied_by(model)
    if applied is not None:
        site = FoundSite(
            model,
            "",
            "root",
            applied.original,
            applied.function,
            applied.detail,
            "module",
            "",
            "root",
            exact=applied.exact,
        )
        site.write_back = applied.in_place
        return Reading((site,), (), {}, site)
    consume(reader.read(model, ""), "output")
    reader.sweep()
    held = {id(site): resolve.children(site.owner).get(site.key) for site in reader.sites if site.kind == "module"}
    inspected = [site for site in reader.sites if id(held.get(id(site))) in reader.inspected]
    withhold(reader, [*inspected, *(site for site in reader.sites if site.shares in inspected)])
    for each in list(reader.versions.values()):
        refuse_what_sees_sites(reader, each)
    _choose_keys(reader.sites)
    for version in (version for each in reader.versions.values() for version in each):
        _settle_loops(reader, version)
    return Reading(
        tuple(reader.sites), tuple(reader.refusals.values()), {k: v for k, v in reader.versions.items() if v}
    )


def _settle_loops(reader: WholeModelReader, version: FunctionVersion) -> None:
    """Leave out exchanges that change nothing, and those of calls that apply an activation in some turns only."""
    for index, edit in list(version.edits.items()):
        sites = list(edit.sites.values())
        if (
            not edit.needed
            and sites
            and all(site.kind == "module" and site.shares is None for site in sites)
            and len(set(sites)) == 1
        ):
            del version.edits[index]
            continue
        count = math.prod(version.loop_lengths[loop] for loop in edit.loops)
        node = version.source.nodes[index]
        is_plain_call = isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords
        if sites and len(sites) < count and not is_plain_call:
            line = getattr(node, "lineno", 0)
            reader.refuse(version.path, f"line {line}: {sites[0].detail} is applied in some turns of its loop only")
            reader.sites[:] = [site for site in reader.sites if site not in sites]
            del version.edits[index]


class WholeModelReader(ModelReader):
    """Reads a model and then what its code does not call."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._names: set[str] = set()
        self._names_of = 0

    def read_graph(self, module: fx.GraphModule, path: str) -> Value:
        """Read a module whose forward is a torch.fx graph."""
        return read_graph(self, module, path)

    def read_library_module(self, module: nn.Module, path: str) -> None:
        """Read a module of torch: its children, and attributes that hold activations."""
        if isinstance(module, ParametrizationList):
            return
        for name, value in list(vars(module).items()):
            if name in _MODULE_STATE or not callable(value) or isinstance(value, type | nn.Module):
                continue
            applied = self._applied_by_attribute(value, f"self.{name}")
            if isinstance(applied, str):
                self.refuse(path, f"{name!r} of nn.{type(module).__name__} {applied}")
            elif applied is not None:
                self.sites.append(
                    FoundSite(
                        module, path, name, applied.original, applied.function, applied.detail, "attribute", "", name,
                        exact=applied.exact,
                    )
                )  # fmt: skip
        for name, child in list(resolve.children(module).items()):
            if child is not None:
                self._add_child(module, path, name, child, taken=True)

    def _applied_by_attribute(self, value: Any, text: str) -> Applied | str | None:
        """The activation that a callable attribute is, or why it is out of reach; None if it applies none."""
        held: Any = value
        settings: dict[str, Any] = {}
        while isinstance(held, functools.partial) and not held.args:
            held, settings = held.func, {**held.keywords, **settings}
        activation = torch_activations.activation_of_function(held)
        if activation in torch_activations.REFUSED_CALLS:
            return torch_activations.REFUSED_CALLS[str(activation)]
        if activation is not None:
            original = FunctionalActivation(activation, torch_activations.call_settings(activation, (), settings))
            function, exact = name_of(original)
            return Applied(original, function, text, "", exact=exact)
        found = self.recognised(id(value), value)
        if found.kind == "activation":
            return Applied(UserFunction(value, text), found.function or ORIGINAL, text, "", exact=False)
        applied = activation_in(value)
        return (
            f"holds a function that applies {applied!r}, and {found.reason}: hold an activation alone"
            if applied
            else None
        )

    def _add_child(self, parent: nn.Module, path: str, name: str, child: nn.Module, *, taken: bool) -> None:
        applied = self.applied_by(child)
        if applied is None:
            self.read(child, join_path(path, name))
        elif (id(parent), name) not in self.slots:
            site = self.slot_site(Slot(parent, name, name), path, applied, ANYTHING, taken=taken)
            site.write_back = applied.in_place

    def sweep(self) -> None:
        """Add what the reading of the root has not reached."""
        everything = list(self.model.named_modules(remove_duplicate=False))
        for path, module in everything:
            if id(module) not in self.parts and id(module) not in self.returned and self.applied_by(module) is None:
                self.called = self._is_mentioned(path, module)
                self.read(module, path)
        self.called = True
        for path, module in everything:
            if id(module) in self.parts:
                continue
            self._check_hooks(module, path)
            if not resolve.is_torch(type(module)):
                self._check_containers(module, path)
                self._check_unread_methods(module, path)
            if self.applied_by(module) is None:
                self._sweep_children(module, path)
        for site in self.sites:
            site.parameter = site.parameter or self._is_below_parametrization(site)

    def _sweep_children(self, module: nn.Module, path: str) -> None:
        for name, child in list(resolve.children(module).items()):
            if child is None or id(child) in self.parts or (id(module), name) in self.slots:
                continue
            if self.applied_by(child) is not None:
                taken = self._is_mentioned(join_path(path, name), child)
                self._add_child(module, path, name, child, taken=taken)

    def _is_mentioned(self, path: str, module: nn.Module) -> bool:
        """Whether code that was read may call a module: it names the attribute that holds the module, or its list."""
        if self.dynamic or not path:
            return True
        names = self._names_in_code()
        if names & _LOOKS_AT_CHILDREN:
            return True
        parts = path.split(".")
        while parts:
            holder = self.model.get_submodule(".".join(parts[:-1]))
            if parts[-1] in names or not (isinstance(holder, _CONTAINERS) or resolve.is_torch(type(holder))):
                return parts[-1] in names
            if resolve.is_torch(type(holder)) and not isinstance(holder, _CONTAINERS):
                return True
            parts.pop()
        return True

    def _names_in_code(self) -> set[str]:
        """The attributes and texts in the functions that were read."""
        for version in self.read_versions[self._names_of :]:
            for node in version.source.nodes:
                if isinstance(node, ast.Attribute):
                    self._names.add(node.attr)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    self._names.add(node.value)
        self._names_of = len(self.read_versions)
        return self._names

    def _check_unread_methods(self, module: nn.Module, path: str) -> None:
        """If code looks attributes up by a computed name, record methods that apply activations and were not read."""
        if not self.dynamic:
            return
        if self.applied_by(module) is not None:
            return
        read = {version.function.__code__ for version in self.read_versions}
        overridden: set[str] = set()
        for cls in type(module).__mro__:
            own = {name: held for name, held in vars(cls).items() if name not in overridden}
            overridden.update(own)
            for name, held in own.items():
                function = inspect.unwrap(held) if isinstance(held, types.FunctionType) else None
                if resolve.is_torch(cls) or function is None or function.__code__ in read or name.startswith("__"):
                    continue
                applied = activation_in(function, type(module))
                if applied:
                    self.refuse(path, f"method {name!r} applies {applied!r}, and no code that was read calls it")

    def _check_hooks(self, module: nn.Module, path: str) -> None:
        for name, kind in _HOOKS.items():
            for hook in vars(module)[name].values():
                function = getattr(hook, "__func__", hook)
                if not isinstance(function, types.FunctionType | functools.partial):
                    function = inspect.getattr_static(type(hook), "__call__", None)
                if resolve.is_torch(function):
                    continue
                applied = activation_in(function)
                if applied:
                    self.refuse(path, f"{kind} ({_place(function)}) applies {applied!r}: put it in the forward")

    def _check_containers(self, module: nn.Module, path: str) -> None:
        """Record activations in plain lists and dicts: their parameters would not be found, and no call shows them."""
        for name, value in list(vars(module).items()):
            if name in _MODULE_STATE:
                continue
            applied = next((each for each in _items(value) if self._is_activation_object(each)), None)
            if applied is not None:
                kind = type(value).__name__
                self.refuse(
                    path,
                    f"self.{name} is a {kind} that holds activations: hold them in nn.ModuleList or nn.ModuleDict",
                )

    def _is_activation_object(self, value: Any) -> bool:
        if isinstance(value, nn.Module):
            return (
                any(torch_activations.is_activation(each) for each in value.modules()) and id(value) not in self.paths
            )
        if isinstance(value, type) or not callable(value):
            return False
        return torch_activations.activation_of_function(value) is not None

    def _is_below_parametrization(self, site: FoundSite) -> bool:
        return ".parametrizations." in f".{site.name}." or isinstance(site.owner, ParametrizationList)


def _items(value: Any) -> Iterator[Any]:
    if type(value) in (list, tuple, set):
        yield from value
    elif type(value) is dict:
        yield from value.values()


def _place(function: Callable[..., Any] | None) -> str:
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else str(function)


def _choose_keys(sites: list[FoundSite]) -> None:
    """Name the calls by their function, with a number from the second on. Sites in use come first."""
    used: dict[int, set[str]] = {}
    for site in sites:
        if site.key:
            used.setdefault(id(site.owner), set()).add(site.key)
    for site in sorted(sites, key=lambda site: not site.taken):
        if not site.key:
            names = used.setdefault(id(site.owner), set())
            site.key = next(key for key in _keys(site) if key not in names and not _has_attribute(site.owner, key))
            names.add(site.key)


def _has_attribute(module: nn.Module, name: str) -> bool:
    """Whether a module has an attribute; without a call of its `__getattr__`."""
    state = (vars(module)[group] for group in ("_parameters", "_buffers", "_modules"))
    return (
        name in vars(module)
        or any(name in group for group in state)
        or any(name in vars(c) for c in type(module).__mro__)
    )


def _keys(site: FoundSite) -> Iterator[str]:
    base = re.sub(r"\W", "_", site.base).lstrip("_") or "activation"
    if site.shares is None:
        yield base
    yield from (f"{base}_{number}" for number in itertools.count(1))
