"""What a name or an attribute refers to, found without running any of the user's code."""

from __future__ import annotations

import builtins
import functools
import inspect
import types
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from nasact.surgery.reading.values import ANYTHING, UNKNOWN, Slot, Value, constant, join

_MISSING = object()


@dataclass(frozen=True)
class Method:
    """A function of a module's class (or one bound to the module by hand), as looked up on the module.

    `held`: the function as its class holds it; `cls`: that class, None for one bound by hand; `static`: a staticmethod.
    """

    owner: nn.Module
    name: str
    held: Any
    cls: type | None
    static: bool = False
    above: bool = False


@dataclass(frozen=True)
class Super:
    """`super()` in a method of class `cls`, for the module `owner`."""

    owner: nn.Module
    cls: type


@dataclass(frozen=True)
class Property:
    """A property or class method of a module's class."""

    owner: nn.Module
    name: str
    function: types.FunctionType
    kind: str = "property"


def children(module: nn.Module) -> dict[str, nn.Module | None]:
    """The children of a module by the names that it has for them; none of a TorchScript module."""
    held = vars(module).get("_modules", {})
    return dict(held) if isinstance(held, dict) else {}


def is_torch(target: Any) -> bool:
    """Whether a function or class belongs to torch itself (torchvision and others do not)."""
    module = getattr(target, "__module__", None) or ""
    if not isinstance(module, str):
        return False
    return module in ("torch", "_operator", "operator", "math") or module.startswith(("torch.", "torch_C"))


def attribute(base: Value, name: str) -> Value:
    """The value of `base.name`."""
    held = base.known
    if held is UNKNOWN:
        return ANYTHING
    if isinstance(held, nn.Module):
        return module_attribute(held, name, base.slot)
    if isinstance(held, Super):
        return _super_attribute(held, name)
    if isinstance(held, types.ModuleType) and name == "__dict__":
        return constant(vars(held))
    if isinstance(held, types.ModuleType):
        found = vars(held).get(name, _MISSING)
        return ANYTHING if found is _MISSING else constant(found)
    if isinstance(held, type):
        static = inspect.getattr_static(held, name, _MISSING)
        if isinstance(static, staticmethod):
            return constant(static.__func__)
        if name == "apply" and issubclass(held, torch.autograd.Function):
            return constant(held.apply)
        return ANYTHING if static is _MISSING or not _is_plain(static) else constant(static)
    if isinstance(held, Tensor | str | int | float | list | tuple | dict | set):
        return ANYTHING
    if name == "__call__" and isinstance(held, types.FunctionType | types.BuiltinFunctionType):
        return base
    if type(held).__module__.startswith("torch._ops") or type(held).__name__ == "OpOverloadPacket":
        return constant(getattr(held, name, None))  # operators are looked up by their name
    own = getattr(held, "__dict__", None)
    if isinstance(own, dict) and name in own:
        return constant(own[name], setting=True)
    static = inspect.getattr_static(type(held), name, _MISSING)
    if isinstance(static, staticmethod):
        return constant(static.__func__)
    if isinstance(static, types.FunctionType):
        return constant(types.MethodType(static, held))
    return constant(static, setting=True) if static is not _MISSING and _is_plain_data(static) else ANYTHING


def module_attribute(module: nn.Module, name: str, slot: Slot | None = None) -> Value:
    """The value of an attribute of a module: its state first, then its class; properties are not run."""
    own = vars(module)
    if name == "training":  # it differs from pass to pass
        return ANYTHING
    if name in own:
        return _held_by(module, own[name], name)
    for group in ("_parameters", "_buffers"):
        if name in own.get(group, {}):
            return constant(None) if own[group][name] is None else Value(parameter=True, is_weight=True)
    held = children(module)
    if name in held:
        child = held[name]
        if child is None:
            return constant(None)
        prefix = f"{slot.name}." if slot is not None else ""
        return Value(known=child, slot=Slot(module, name, f"{prefix}{name}"))
    for cls in type(module).__mro__:
        if name in vars(cls):
            return _of_class(module, name, vars(cls)[name], cls)
    return ANYTHING


def _held_by(module: nn.Module, value: Any, name: str) -> Value:
    if isinstance(value, Tensor):
        return ANYTHING  # a pass may have stored it
    if isinstance(value, types.MethodType) and value.__self__ is module:
        return Value(known=Method(module, name, value.__func__, None))
    return constant(value, setting=True)


def _of_class(module: nn.Module, name: str, static: Any, cls: type, *, above: bool = False) -> Value:
    if isinstance(static, staticmethod):
        if not isinstance(static.__func__, types.FunctionType) or is_torch(static.__func__):
            return constant(static.__func__)
        return Value(known=Method(module, name, static.__func__, cls, static=True, above=above))
    if isinstance(static, nn.Module):
        return constant(static)
    if isinstance(static, property):
        function = static.fget
        return Value(known=Property(module, name, function)) if isinstance(function, types.FunctionType) else ANYTHING
    if isinstance(static, classmethod | functools.cached_property):
        function = static.__func__ if isinstance(static, classmethod) else static.func
        kind = "classmethod" if isinstance(static, classmethod) else "cached property"
        if not isinstance(function, types.FunctionType):
            return ANYTHING
        return Value(known=Property(module, name, function, kind))
    if isinstance(static, types.FunctionType):
        return Value(known=Method(module, name, static, cls, above=above))
    if _is_plain_data(static) or isinstance(static, types.BuiltinFunctionType | type | functools.partial):
        return constant(static, setting=True)
    if callable(static) and not isinstance(static, type):
        return Value(known=Method(module, name, static, cls, above=above))
    return ANYTHING


def _super_attribute(held: Super, name: str) -> Value:
    order = type(held.owner).__mro__
    if held.cls not in order:
        return ANYTHING
    for cls in order[order.index(held.cls) + 1 :]:
        if name in vars(cls):
            return _of_class(held.owner, name, vars(cls)[name], cls, above=True)
    return ANYTHING


def _is_plain(value: Any) -> bool:
    return not hasattr(type(value), "__get__") or isinstance(
        value, types.FunctionType | types.BuiltinFunctionType | types.MethodDescriptorType
    )


def _is_plain_data(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | tuple | list | dict | types.ModuleType)


def name(function: types.FunctionType, identifier: str) -> Value:
    """The value of a name that the function does not bind: from its closure, its globals, or the builtins."""
    code = function.__code__
    if identifier in code.co_freevars:
        cell = (function.__closure__ or ())[code.co_freevars.index(identifier)]
        try:
            return constant(cell.cell_contents)
        except ValueError:  # the cell is empty
            return ANYTHING
    for scope in (function.__globals__, vars(builtins)):
        if identifier in scope:
            found = scope[identifier]
            return Value(parameter=True) if isinstance(found, Tensor) else constant(found)
    return ANYTHING


def item(base: Value, index: Value) -> Value | None:
    """The value of `base[index]` for a known container and a known index; None if it is not known."""
    held, key = base.known, index.known
    if index.setting and not isinstance(key, slice):
        return None
    if base.items is not None and isinstance(key, int) and not isinstance(key, bool):
        return base.items[key] if -len(base.items) <= key < len(base.items) else None
    if isinstance(held, nn.ParameterList | nn.ParameterDict):
        return Value(parameter=True, is_weight=True)
    if base.items is not None and key is UNKNOWN:
        return replace(join(base.items), slot=None) if base.items else None
    if held is UNKNOWN or key is UNKNOWN:
        return None
    if isinstance(held, nn.Sequential | nn.ModuleList) and isinstance(key, int) and not isinstance(key, bool):
        names = list(children(held))
        return module_attribute(held, names[key], base.slot) if -len(names) <= key < len(names) else None
    if isinstance(held, nn.Sequential | nn.ModuleList) and isinstance(key, slice):
        names = list(children(held))
        members = [module_attribute(held, each, base.slot) for each in names]
        if index.setting:
            chosen = set(names[key])
            items = tuple(replace(m, in_use=n in chosen) for n, m in zip(names, members, strict=True))
            return Value(items=items, layers=True)
        return Value(items=tuple(members[key]), layers=True)
    if isinstance(held, nn.ModuleDict) and isinstance(key, str):
        return module_attribute(held, key, base.slot) if key in held else None
    if (
        isinstance(held, Mapping)
        and isinstance(key, str | int)
        and type(held).__module__ in ("builtins", "collections")
    ):
        return constant(held[key], setting=base.setting) if key in held else None
    if isinstance(held, list | tuple) and isinstance(key, int) and -len(held) <= key < len(held):
        return constant(held[key], setting=True)
    return None


def members(base: Value) -> tuple[Value, ...] | None:
    """The modules or functions that a loop over `base` goes through; None if it is no known sequence of them."""
    held = base.known
    if base.items is not None:
        if base.layers:
            return base.items
        return base.items if base.items and all(_is_layer(each.known) for each in base.items) else None
    if isinstance(held, nn.Sequential | nn.ModuleList) and type(held).__iter__ in (
        nn.Sequential.__iter__,
        nn.ModuleList.__iter__,
    ):
        return tuple(module_attribute(held, each, base.slot) for each in children(held))
    if isinstance(held, list | tuple) and held and all(_is_layer(each) for each in held):
        return tuple(constant(each) for each in held)
    return None


def _is_layer(value: Any) -> bool:
    return isinstance(value, nn.Module | Method) or (callable(value) and not isinstance(value, type))
