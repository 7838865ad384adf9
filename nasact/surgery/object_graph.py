"""Every object that `copy.deepcopy` visits from a model: modules, tensors, containers, hooks and other attributes.

Knows Python and torch; must not know sites.
"""

from __future__ import annotations

import functools
import types
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# Objects without parts that deepcopy would copy. Proxies are excluded, as they pass for the object behind them.
_WITHOUT_PARTS = (
    str, bytes, int, float, complex, range, type(None), type, types.ModuleType, types.CodeType, torch.dtype,
    torch.device, torch.layout, torch.memory_format, weakref.ProxyType, weakref.CallableProxyType,
)  # fmt: skip
_CachedFunction = type(functools.lru_cache(lambda: None))
_TENSOR_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


@dataclass(frozen=True)
class Place:
    """Where an object is: an attribute `key` of the module at `path` (or within it), or the module itself (key "")."""

    path: str = ""
    key: str = ""

    @property
    def full_name(self) -> str:
        """Path and key, with a dot; "" for the model itself."""
        return ".".join(filter(None, (self.path, self.key)))


def contents(model: nn.Module) -> Iterator[tuple[Place, Any]]:
    """Each object that deepcopy visits from `model`, once, with the place where it is first found.

    Functions, weak references and objects whose class defines `__deepcopy__` are returned, but not looked into.
    """
    seen: dict[int, Any] = {}  # holds the objects: the id of a temporary object could be used again
    stack: list[tuple[Place, Any]] = [(Place(), model)]
    while stack:
        place, value = stack.pop()
        if id(value) in seen or issubclass(type(value), _WITHOUT_PARTS):
            continue
        seen[id(value)] = value
        yield place, value
        stack.extend(reversed(list(_parts(place, value))))


def is_atomic(value: object) -> bool:
    """Whether deepcopy returns `value` itself although it may refer to other objects."""
    kinds = types.FunctionType, types.BuiltinFunctionType, weakref.ReferenceType
    return isinstance(value, kinds) or is_cached_function(value)


def is_cached_function(value: object) -> bool:
    """Whether `value` was made by functools.lru_cache."""
    return isinstance(value, _CachedFunction)


def items(value: Any) -> Iterator[Any]:
    """The items of a container of Python, keys and values of a mapping; nothing for other objects."""
    if isinstance(value, dict):
        yield from value.keys()
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset | deque):
        yield from value


def attributes(value: Any) -> dict[str, Any]:
    """The attributes of an object itself, also those in `__slots__`; properties are not evaluated."""
    found = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            if isinstance(vars(kind).get(name), types.MemberDescriptorType) and hasattr(value, name):
                found[name] = getattr(value, name)
    return found


def tensor_hooks(tensor: Tensor) -> dict[str, list[Any]]:
    """The gradient hooks of a tensor, by the name of the attribute in which torch keeps them."""
    # private names, but torch has no public way to read a tensor's hooks
    return {name: list((getattr(tensor, name) or {}).values()) for name in _TENSOR_HOOKS}


def _parts(place: Place, value: Any) -> Iterator[tuple[Place, Any]]:
    """What an object refers to."""
    if isinstance(value, nn.Module):
        yield from _module_parts(place.full_name, value)
    elif isinstance(value, Tensor):
        hooks = (hook for found in tensor_hooks(value).values() for hook in found)
        yield from ((place, part) for part in (*vars(value).values(), *hooks))
    elif isinstance(value, types.MethodType):
        yield from ((place, part) for part in (value.__func__, value.__self__))
    elif isinstance(value, functools.partial):
        yield from ((place, part) for part in (value.func, value.args, value.keywords, vars(value)))
    elif not is_atomic(value) and not hasattr(type(value), "__deepcopy__"):
        yield from ((place, part) for part in (*items(value), *attributes(value).values()))


def _module_parts(path: str, module: nn.Module) -> Iterator[tuple[Place, Any]]:
    for key, value in vars(module).items():
        if key in ("_modules", "_parameters", "_buffers"):
            yield from ((Place(path, name), part) for name, part in value.items())
        else:
            yield Place(path, key), value
