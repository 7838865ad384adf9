"""Reads calls of the user's own functions: methods, `super()`, helpers. A function with sites is read once per call."""

from __future__ import annotations

import ast
import functools
import types
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

from torch import nn

from nasact.reserved_names import ORIGINAL
from nasact.surgery import locators, torch_activations
from nasact.surgery.decorators import Hidden, decorators_of, undecorated
from nasact.surgery.elementwise import Recognition, recognise
from nasact.surgery.reading import resolve
from nasact.surgery.reading.call_sites import Applied, CallSiteReader, overwrites
from nasact.surgery.reading.evidence import activation_in, activation_named, count_activations, is_pure, may_apply
from nasact.surgery.reading.frame import Frame, consume, keep
from nasact.surgery.reading.signatures import activation_behind, assigns, bind, defaults, takes_one, uses_first
from nasact.surgery.reading.values import ANYTHING, Value, join, tensor, without_object
from nasact.surgery.reading.versions import CallEdit, FunctionVersion
from nasact.surgery.source_code import NoSource, read_source
from nasact.surgery.user_function import user_function

MAX_DEPTH = 40
MAX_FOLLOWED = 2
"""How deep functions are read again for the results that they receive; each level may double the work."""
OWNER = "_nasact_owner"
"""The additional first parameter of a helper function whose calls are redirected."""


class FunctionCallReader(CallSiteReader):
    """Reads functions. `versions`: by id of a module, the versions of functions that it calls, for rewriting."""

    def __init__(self) -> None:
        super().__init__()
        self.versions: dict[int, list[FunctionVersion]] = {}
        self.read_versions: list[FunctionVersion] = []
        self.own_methods: dict[tuple[int, Any], FunctionVersion | None] = {}
        self.active: list[FunctionVersion] = []
        self._following = 0
        self._recognised: dict[object, Recognition] = {}

    def own_method(
        self, owner: nn.Module, path: str, name: str, held: Any, cls: type | None, *, taken: bool = True
    ) -> FunctionVersion | None:
        """The version of a method that keeps its name on the owner's class; None if it cannot be read.

        `taken`: False if the present settings exclude the call.
        """
        key = (id(owner), held)
        if key not in self.own_methods:
            self.own_methods[key] = None
            locator = locators.of_method(cls, name) if cls is not None else locators.of_function(held)
            version = self.version(owner, path, held, name, locator, as_method=True)
            self.own_methods[key] = version
            if version is not None:
                version.taken = taken
                self.run(version, {}, taken=taken)
        known = self.own_methods[key]
        if known is not None and taken and not known.taken:
            known.taken = True
            self.run(known, {})
        if known is not None and name not in known.names:
            known.names.append(name)
        return known

    def version(
        self,
        owner: nn.Module,
        path: str,
        outer: Any,
        attribute: str,
        locator: locators.Locator | None,
        *,
        as_method: bool,
    ) -> FunctionVersion | None:
        """A version of a function, not read yet. If it cannot be read but applies an activation, that is recorded."""
        place = f"{type(owner).__qualname__}.{attribute}" if as_method else getattr(outer, "__qualname__", attribute)
        try:
            function = undecorated(outer)
            for layer in decorators_of(outer):
                applied = activation_named(layer.__code__)
                if applied:
                    self.refuse(
                        path, f"{place} is decorated by {layer.__code__.co_qualname}, which applies {applied!r}"
                    )
            source = read_source(function)
        except Hidden as error:
            applied = activation_in(outer, type(owner)) or activation_behind(outer, type(owner))
            if applied:
                reason = f"{place} is decorated by {error}, which hides the function: put {applied!r} in a module"
                self.refuse(path, reason)
            return None
        except NoSource as error:
            applied = activation_in(outer, type(owner))
            if applied:
                self.refuse(path, f"{place}: {error}, and it uses {applied!r}")
            return None
        arguments = source.node.args
        first = next(iter((*arguments.posonlyargs, *arguments.args)), None)
        if as_method and (first is None or assigns(source.nodes, first.arg)):
            applied = activation_in(outer, type(owner))
            if applied:
                self.refuse(path, f"{place} has no parameter that stays the module, and it uses {applied!r}")
            return None
        owner_name = first.arg if as_method and first is not None else OWNER
        made = FunctionVersion(owner, path, outer, source, attribute, owner_name, as_method, locator)
        self.versions.setdefault(id(owner), []).append(made)
        self.read_versions.append(made)
        return made

    def run(self, version: FunctionVersion, arguments: Mapping[str, Value], *, taken: bool = True) -> Value:
        """Read the body of a function; return its value. `taken`: False if the present settings exclude the call."""
        if len(self.active) >= MAX_DEPTH or any(
            each.function is version.function and each.owner is version.owner for each in self.active
        ):
            return ANYTHING
        names = dict(arguments)
        if version.as_method:
            names[version.owner_name] = Value(known=version.owner)
        frame = Frame(version, names, taken=taken)
        self.active.append(version)
        try:
            node = version.source.node
            if isinstance(node, ast.Lambda):
                frame.statement, frame.rebound = node, None
                frame.returned.append(self.evaluate(node.body, frame))
            else:
                self._refuse_defaults(version, arguments)
                self.execute(node.body, frame)
        finally:
            self.active.pop()
        version.returned = join(frame.returned)
        return version.returned

    def _refuse_defaults(self, version: FunctionVersion, arguments: Mapping[str, Value]) -> None:
        held = defaults(version.function)
        for name, default in held.items():
            applied = torch_activations.activation_of_function(default)
            if applied and name not in arguments:
                self.refuse(
                    version.path,
                    f"{version.attribute}: its argument {name!r} is {applied!r} by default: hold it as a module",
                )

    def call_method(self, frame: Frame, node: ast.Call, method: resolve.Method, *, drop_first: bool = False) -> Value:
        """The value of a call of a method of the owner, or of one of its children."""
        values = self.argument_values(frame, node)
        if resolve.is_torch(method.held) or resolve.is_torch(method.cls or type(None)):
            return self.library_method(frame, node, method, values)
        owner, path = method.owner, self.path_of(method.owner, frame)
        whole = self._whole_call(frame, node, method.held, method, values)
        if whole is not None:
            return whole
        if not method.static and not method.above and not drop_first and not self._receives_activation(values):
            version = self.own_method(owner, path, method.name, method.held, method.cls, taken=frame.taken)
            if version is None:
                return self.unread_call(frame, node, values)
            here = (id(frame.version), id(node), frame.turns)
            if owner is frame.owner and version not in self.active:
                version.first_call = version.first_call or here
            if (
                version.first_call in (None, here)
                or owner is not frame.owner
                or version in self.active
                or not version.sites()
            ):
                self._target(frame, node, version, drop_first=False)
                return self._result(frame, values, version)
        locator = (
            locators.of_method(method.cls, method.name) if method.cls is not None else locators.of_function(method.held)
        )
        return self._redirected(
            frame, node, method.held, locator, values, as_method=not method.static, drop_first=drop_first
        )

    def call_helper(self, frame: Frame, node: ast.Call, function: Any) -> Value:
        """The value of a call of a function that is no method."""
        values = self.argument_values(frame, node)
        whole = self._whole_call(frame, node, function, None, values)
        if whole is not None:
            return whole
        flows = any(value.every_result() or isinstance(value.known, nn.Module | resolve.Method) for _, value in values)
        if not flows and not may_apply(function) and not self._receives_activation(values):
            for _, value in values:
                consume(value, "other")
                keep(value)
            tensors = [value for _, value in values if not value.is_known or value.parameter]
            return Value(parameter=bool(tensors) and all(value.parameter for value in tensors))
        first = values[0][1].known if values else None
        if first is frame.owner and node.args and not isinstance(node.args[0], ast.Starred):
            # Parent.forward(self, x): the function of a class, called with the owner
            locator = locators.of_function(function) or self._locator_in(frame, node)
            return self._redirected(frame, node, function, locator, values, as_method=True, drop_first=True)
        locator = locators.of_function(function) or self._locator_in(frame, node)
        return self._redirected(frame, node, function, locator, values, as_method=False)

    def _locator_in(self, frame: Frame, node: ast.Call) -> locators.Locator | None:
        return locators.in_function(frame.version.locator, node.func.id) if isinstance(node.func, ast.Name) else None

    def _receives_activation(self, values: list[tuple[str | None, Value]]) -> bool:
        return any(torch_activations.activation_of_function(value.known) for _, value in values)

    def _redirected(
        self, frame: Frame, node: ast.Call, held: Any, locator: locators.Locator | None,
        values: list[tuple[str | None, Value]], *, as_method: bool, drop_first: bool = False,
    ) -> Value:  # fmt: skip
        """The value of a call that surgery redirects to a version of the function for this call alone."""
        index = frame.index(node)
        edit = frame.version.edits.get(index)
        version = edit.targets.get(frame.turns) if edit is not None else None
        running = next((each for each in self.active if each.outer is held and each.owner is frame.owner), None)
        if version is None and running is not None and running.attribute.startswith("_nasact_"):
            running.calls_itself = True
            self._target(frame, node, running, drop_first=drop_first)
            return ANYTHING
        if version is None:
            name = getattr(held, "__name__", "function").strip("<>")
            count = len(self.versions.get(id(frame.owner), ()))
            version = self.version(
                frame.owner, frame.path, held, f"_nasact_{name}_{count}", locator, as_method=as_method
            )
        if version is None:
            return self.unread_call(frame, node, values)
        bound = bind(version, values[1:] if drop_first else values)
        result = self.run(version, bound, taken=frame.taken)
        if version.calls_itself:  # with other arguments than in this call
            result = self.run(
                version, {name: without_object(value) for name, value in bound.items()}, taken=frame.taken
            )
        if version.sites():
            if frame.shadowed:
                self.refuse_call(
                    frame,
                    node,
                    f"{ast.unparse(node.func)} applies an activation where {frame.version.owner_name!r} is shadowed",
                )
            self._target(frame, node, version, drop_first=drop_first)
        else:
            self.versions[id(frame.owner)].remove(version)
        return result

    def _target(self, frame: Frame, node: ast.Call, version: FunctionVersion, *, drop_first: bool) -> None:
        if version.owner is frame.owner:
            edit = frame.version.edits.setdefault(frame.index(node), CallEdit(loops=frame.loops))
            edit.targets[frame.turns] = version
            edit.drop_first = drop_first

    def _result(self, frame: Frame, values: list[tuple[str | None, Value]], version: FunctionVersion) -> Value:
        returned = version.returned or ANYTHING
        if any(value.every_result() for _, value in values) and self.may_follow(version):
            returned = self.follow(version, values)
        else:
            for _, value in values:
                consume(value, "other")
        for _, value in values:
            keep(value)
        return (
            tensor(results=returned.every_result(), channels=returned.channels, parameter=returned.parameter)
            if returned.items is None
            else returned
        )

    def may_follow(self, version: FunctionVersion) -> bool:
        """Whether a function may be read again for the results that it receives: not inside of itself, nor deeply."""
        return version not in self.active and self._following < MAX_FOLLOWED

    def follow(self, version: FunctionVersion, values: list[tuple[str | None, Value]]) -> Value:
        """Read a function again, to follow the results of sites that it receives; return its value for them."""
        before = version.returned
        self._following += 1
        try:
            return self.run(version, bind(version, values), taken=version.taken)
        finally:
            self._following -= 1
            version.returned = before

    def _whole_call(
        self,
        frame: Frame,
        node: ast.Call,
        function: Any,
        method: resolve.Method | None,
        values: list[tuple[str | None, Value]],
    ) -> Value | None:
        """The value of a call of a function of one argument that is an activation as a whole; None for another call."""
        inner = function
        while hasattr(inner, "__wrapped__"):
            inner = inner.__wrapped__
        is_method = method is not None and not method.static
        if (
            len(node.args) != 1
            or node.keywords
            or isinstance(node.args[0], ast.Starred)
            or not isinstance(inner, types.FunctionType)
        ):
            return None
        if values[0][1].is_known or values[0][1].size or not takes_one(inner, skip=1 if is_method else 0):
            return None
        if not is_pure(inner) or (is_method and uses_first(inner)):
            return None
        callee = functools.partial(function, None) if is_method else function
        found = self.recognised(inner, callee)
        if found.kind == "linear":
            consume(values[0][1], "other") if not values[0][1].results else None
            return tensor(results=values[0][1].every_result(), channels=values[0][1].channels)
        if found.kind != "activation":
            return None
        if found.function == ORIGINAL and count_activations(inner) < 2:
            return None  # of an unnamed function such as x + relu(x), the activation in it is the site
        locator = locators.of_method(method.cls, method.name) if method is not None and method.cls else None
        locator = locator or locators.of_function(inner) or self._locator_in(frame, node)
        text = ast.unparse(node.func)
        base = found.function if found.function != ORIGINAL else inner.__name__.strip("<>")
        original = user_function(function, text, locator, skip_first=is_method)
        detail = f"{text} (line {inner.__code__.co_firstlineno})"
        applied = Applied(original, found.function, detail, base, overwrites(callee), exact=False)
        return self.call_site(frame, node, node.args[0], values[0][1], applied)

    def recognised(self, key: Any, function: Any) -> Recognition:
        """What a callable computes; each is run once."""
        if key not in self._recognised:
            self._recognised[key] = recognise(function)
        return self._recognised[key]

    def argument_values(self, frame: Frame, node: ast.Call) -> list[tuple[str | None, Value]]:
        """The arguments of a call with their names; None for positional ones."""
        values: list[tuple[str | None, Value]] = [(None, self.evaluate(each, frame)) for each in node.args]
        return values + [(each.arg or "", self.evaluate(each.value, frame)) for each in node.keywords]

    def container(self, held: Any, values: list[tuple[str | None, Value]]) -> Value | None:
        """The value of a call that only puts its arguments together: dict, list, a dataclass, a named tuple."""
        is_record = isinstance(held, type) and (is_dataclass(held) or issubclass(held, dict | list | tuple))
        if not is_record:
            return None
        for _, value in values:
            keep(value)
        return Value(results=Value(items=tuple(value for _, value in values)).every_result())

    def unread_call(self, frame: Frame, node: ast.Call, values: list[tuple[str | None, Value]]) -> Value:
        """The value of a call of code that is not read; an activation that it receives is out of reach."""
        for _, value in values:
            consume(value, "other")
            keep(value)
            self.check_handed_on(frame, node, value)
        return ANYTHING

    def check_handed_on(self, frame: Frame, node: ast.Call, value: Value) -> None:
        """Record an activation that a call receives as an argument; read a method that it receives."""
        held = value.known
        for each in value.items or ():
            self.check_handed_on(frame, node, each)
        if isinstance(held, resolve.Method):
            if (
                not resolve.is_torch(held.held)
                and not resolve.is_torch(held.cls or type(None))
                and not held.static
                and not held.above
            ):
                self.own_method(held.owner, self.path_of(held.owner, frame), held.name, held.held, held.cls)
            return
        if isinstance(held, nn.Module | type) or held is None or not callable(held):
            return
        applied = torch_activations.activation_of_function(held)
        if not applied and isinstance(held, types.FunctionType | functools.partial) and not resolve.is_torch(held):
            applied = activation_in(held)
        if applied:
            text = ast.unparse(node.func)[:60]
            self.refuse_call(
                frame, node, f"{applied} is handed on to {text}, not called: call it directly or hold it as a module"
            )

    def library_method(
        self, frame: Frame, node: ast.Call, method: resolve.Method, values: list[tuple[str | None, Value]]
    ) -> Value:
        """The value of a call of a method that torch defines."""
        raise NotImplementedError

    def path_of(self, module: nn.Module, frame: Frame) -> str:
        """The path of a module of the model."""
        raise NotImplementedError
