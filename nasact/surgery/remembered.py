"""Finds functions in a copied model that remember modules or tensors of the original: deepcopy does not copy functions.

A function remembers what its closure, its defaults and the global names that it reads lead to. Knows Python and torch.
"""

from __future__ import annotations

import dis
import functools
import inspect
import types
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from nasact.surgery.object_graph import Place, attributes, contents, is_atomic, is_cached_function, items

_WRITING_METHODS = frozenset({"append", "add", "extend", "insert", "update", "setdefault", "clear"})
_WITHOUT_ATTRIBUTES = str | bytes | int | float | type | None
_HOOKS = "_hooks"
"""The end, or the middle, of the name of each attribute in which torch keeps a module's hooks."""


def refusal(original: Iterable[tuple[Place, Any]], copied: nn.Module) -> str | None:
    """Why `copied` would compute with the weights of its original, in one sentence; None if it would not.

    `original`: the contents of the original. What both models share on purpose (`__deepcopy__`) is allowed.
    """
    found = list(contents(copied))
    shared = {id(value) for _, value in found}
    originals = _Originals()
    for place, value in original:
        if id(value) not in shared:
            originals.add(place, value)
    classes: set[type] = set()
    for place, value in found:
        if is_atomic(value):
            other = originals.first_reached(value)
            if other is not None:
                return _describe(place, value, other)
        elif isinstance(value, nn.Module) and type(value) not in classes:
            classes.add(type(value))
            for method in _methods_of_forward(type(value)):
                other = originals.first_reached(method)
                if other is not None:
                    return _describe_method(place, method, other)
    return None


def _methods_of_forward(kind: type) -> Iterator[types.FunctionType]:
    """The forward of a class, and the methods of the class that it names, directly or through other methods."""
    names, seen = ["forward"], {"forward"}
    while names:
        method = inspect.getattr_static(kind, names.pop(), None)
        if isinstance(method, staticmethod | classmethod):
            method = method.__func__
        elif isinstance(method, property):
            # torch's parametrised weights remember their first module, but only for the key of a cache
            method = method.fget if not _is_of_torch(method.fget) else None
        if isinstance(method, types.FunctionType):
            yield method
            inner = inspect.unwrap(method)
            new = _names_read(method) | (_names_read(inner) if isinstance(inner, types.FunctionType) else set())
            names += [name for name in new if name not in seen]
            seen |= new


@dataclass
class _Originals:
    """The modules and tensors that a copy must not refer to, with the place of each in the model.

    `memory`: the tensors by the address of their memory, as a view of a parameter also leads to its values.
    `seen`: what has been searched: objects with the names of the attributes that are read there.
    """

    places: dict[int, tuple[Place, Any]] = field(default_factory=dict)
    memory: dict[int, tuple[Place, Any]] = field(default_factory=dict)
    seen: dict[tuple[int, frozenset[str]], object] = field(default_factory=dict)

    def add(self, place: Place, value: object) -> None:
        """Add a module with its buffers, or a parameter; other objects, such as stored activations, are allowed."""
        if isinstance(value, nn.Module):
            self.places[id(value)] = (place, value)
            for name, buffer in value.named_buffers(recurse=False):
                self._add_tensor(Place(place.full_name, name), buffer)
        elif isinstance(value, Tensor) and value.is_leaf and (value.requires_grad or isinstance(value, nn.Parameter)):
            self._add_tensor(place, value)

    def _add_tensor(self, place: Place, value: Tensor) -> None:
        self.places[id(value)] = (place, value)
        if address(value):
            self.memory.setdefault(address(value), (place, value))

    def find(self, value: object) -> tuple[Place, Any] | None:
        found = self.places.get(id(value))
        if found is None and isinstance(value, Tensor):
            return self.memory.get(address(value))
        return found

    def first_reached(self, root: object) -> tuple[Place, Any] | None:
        """The first of them that the function, bound method or weak reference `root` leads to."""
        stack: list[tuple[Any, frozenset[str]]] = [(root, frozenset())]
        while stack:
            value, names = stack.pop()
            found = self.find(value)
            if found is not None:
                return found
            if (id(value), names) not in self.seen:
                self.seen[id(value), names] = value
                stack.extend(reversed(list(_leads_to(value, names))))
        return None


def address(tensor: Tensor) -> int:
    """The address of a tensor's memory, the same for all views of it; 0 if it has no memory of its own."""
    try:
        return int(tensor.untyped_storage().data_ptr())
    except (RuntimeError, NotImplementedError):  # sparse and wrapper tensors
        return 0


# ---- what a function leads to ----------------------------------------------------------------------------------------


def _leads_to(value: Any, names: frozenset[str]) -> Iterator[tuple[Any, frozenset[str]]]:
    """What may be used through `value` by code that reads the attributes `names`, each with the names read there."""
    if isinstance(value, types.FunctionType):
        own = _names_read(value)
        yield from ((part, own) for part in _remembered_by(value))
    elif isinstance(value, types.MethodType):
        yield value.__func__, names
        if isinstance(value.__func__, types.FunctionType):
            yield value.__self__, _names_read(value.__func__)
        else:
            yield value.__self__, names
    elif isinstance(value, functools.partial):
        yield from ((part, names) for part in (value.func, *value.args, *value.keywords.values()))
    elif isinstance(value, types.BuiltinFunctionType):
        if not isinstance(value.__self__, types.ModuleType) and value.__name__ not in _WRITING_METHODS:
            yield value.__self__, names
    elif isinstance(value, weakref.ReferenceType):
        yield value(), names
    elif is_cached_function(value):
        yield value.__wrapped__, names
    elif isinstance(value, nn.Module):
        yield from ((part, names) for _, part in contents(value) if isinstance(part, nn.Module | Tensor))
    elif isinstance(value, dict | list | tuple | set | frozenset):
        yield from ((part, names) for part in items(value) if not isinstance(part, types.ModuleType))
    elif isinstance(value, types.ModuleType):
        yield from ((part, names) for name in names if isinstance(part := vars(value).get(name), nn.Module | Tensor))
    elif not isinstance(value, Tensor | _WITHOUT_ATTRIBUTES) and not _is_of_torch(value):
        yield from _attributes_read(value, names)


def _attributes_read(value: Any, names: frozenset[str]) -> Iterator[tuple[Any, frozenset[str]]]:
    """The attributes of any other object that code reads by name, its own methods included."""
    own = attributes(value)
    for name in names | {"__call__"}:
        if name in own:
            yield own[name], names
        else:
            method = inspect.getattr_static(type(value), name, None)
            if isinstance(method, types.FunctionType):
                yield types.MethodType(method, value), names


def _names_read(function: types.FunctionType) -> frozenset[str]:
    """The names of attributes, methods and global variables in a function."""
    return frozenset(name for code in _codes(function.__code__) for name in code.co_names)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A code object and those of the functions that are defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _remembered_by(function: types.FunctionType) -> Iterator[Any]:
    """The values of a function's closure, its defaults, and the global names that it reads."""
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
        if not (isinstance(value, dict | list | set) and _only_writes(code, name)):
            yield value
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    if not _is_of_torch(function):
        for each in _codes(code):
            yield from _globals_read(each, function.__globals__)


def _globals_read(code: types.CodeType, names: dict[str, Any]) -> Iterator[Any]:
    found = {name: names[name] for name in code.co_names if name in names}
    found = {name: value for name, value in found.items() if not isinstance(value, _WITHOUT_ATTRIBUTES)}
    if found:  # the names of a code object are also those of attributes
        read = {each.argval for each in dis.get_instructions(code) if each.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
        for name, value in found.items():
            if name in read and not (isinstance(value, dict | list | set) and _only_writes(code, name)):
                yield value


def _only_writes(code: types.CodeType, name: str) -> bool:
    """Whether a function only stores something in the container `name`, as a hook that records values does."""
    for each in _codes(code):
        steps = list(dis.get_instructions(each))
        for step, following, after in zip(steps, steps[1:], steps[2:], strict=False):
            if step.argval == name and step.opname.startswith("LOAD_") and step.opname != "LOAD_CLOSURE":
                writes = following.opname in ("LOAD_METHOD", "LOAD_ATTR") and following.argval in _WRITING_METHODS
                stores = following.opname.startswith("LOAD_") and after.opname == "STORE_SUBSCR"
                if not writes and not stores:
                    return False
    return True


def _is_of_torch(value: Any) -> bool:
    """Whether a function was written, or an object's class or a Python module is defined, in torch."""
    if isinstance(value, types.FunctionType):
        name = value.__globals__.get("__name__")
    else:
        name = value.__name__ if isinstance(value, types.ModuleType) else type(value).__module__
    return str(name).partition(".")[0] == "torch"


# ---- the sentence ----------------------------------------------------------------------------------------------------


def _at(name: str) -> str:
    return repr(name) if name else "the model"


def _named(other: tuple[Place, Any], owner: str) -> str:
    place, value = other
    if isinstance(value, Tensor):
        return f"the tensor {place.full_name!r}"
    return "the module itself" if place.full_name == owner else f"another module ({_at(place.full_name)})"


def _describe_method(place: Place, method: types.FunctionType, other: tuple[Place, Any]) -> str:
    name = place.full_name
    return (
        f"{_at(name)}: {method.__qualname__} uses {_named(other, name)} through a global name or a closure: a copy "
        "would compute with the original's weights. Use an attribute of self, or pass inplace=True"
    )


def _describe(place: Place, value: object, other: tuple[Place, Any]) -> str:
    where, named = _at(place.path), _named(other, place.path)
    weights = "a copy would compute with the original's weights"
    if place.key == "forward":
        return (
            f"{where}: its forward was put on the instance as a function that remembers {named}: {weights}. "
            "Bind it with types.MethodType, or pass inplace=True"
        )
    if isinstance(value, weakref.ReferenceType):
        return (
            f"{where}: its attribute {place.key!r} holds a weak reference to {named}, which is not copied: {weights}. "
            "Pass inplace=True"
        )
    if _HOOKS in place.key:
        return (
            f"{where}: a hook remembers {named}: {weights}. Let it use the module that it receives, or pass "
            "inplace=True"
        )
    return (
        f"{where}: {place.key!r} holds a function that remembers {named}: {weights}. Make it a method of the module, "
        "or pass inplace=True"
    )
