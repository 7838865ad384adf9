"""Whether code that cannot be read may apply an activation: by the names in its byte code."""

from __future__ import annotations

import builtins
import dis
import functools
import inspect
import re
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from nasact.surgery.reading.resolve import is_torch
from nasact.surgery.torch_activations import (
    CALL_NAMES,
    CLASS_NAMES,
    activation_of_function,
    is_activation,
    is_activation_class,
)

_FORMULA_NAMES = frozenset({"maximum", "where", "erf", "masked_fill", "heaviside", "getattr", "clip", "clamp", "fmax"})
_RECTIFIERS = frozenset({"clamp", "clamp_", "clamp_min", "clamp_min_", "clip", "clip_"})


def activation_in(target: Any, owner: type | None = None, visited: set[object] | None = None) -> str | None:
    """The first name of an activation in a callable or in what it calls; None if there is none.

    `owner`: the class whose methods the callable may call.
    """
    if isinstance(target, functools.partial):
        return activation_in(target.func, owner, visited)
    named = activation_of_function(target)
    if named is not None:
        return named
    if isinstance(target, torch.jit.ScriptFunction):
        return next((word for word in re.findall(r"\w+", str(target.code)) if word in CALL_NAMES), None)
    if isinstance(target, nn.Module):
        return type(target).__name__ if is_activation(target) else None
    visited = set() if visited is None else visited
    function = inspect.unwrap(target) if callable(target) else target
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    if not isinstance(function, types.FunctionType) or code in visited:
        return None
    visited.add(code)
    for each in _codes(function.__code__):
        for name in each.co_names:
            if name in CALL_NAMES or name in CLASS_NAMES or (name in _RECTIFIERS and _has_lower_bound(name, each)):
                return str(name)
            held = inspect.getattr_static(owner, name, None) if owner else None
            held = function.__globals__.get(name) if held is None else held
            if holds_activations(held):
                return str(name)
            found = _in_held(held, owner, visited)
            if found:
                return found
    for cell in function.__closure__ or ():
        try:
            found = _in_held(cell.cell_contents, owner, visited)
        except ValueError:  # the cell is empty
            continue
        if found:
            return found
    return None


def count_activations(function: types.FunctionType) -> int:
    """How many activations the byte code of a function names, each as often as it does."""
    return sum(
        instruction.argval in CALL_NAMES
        for each in _codes(function.__code__)
        for instruction in dis.get_instructions(each)
    )


def _has_lower_bound(name: str, code: types.CodeType) -> bool:
    """Whether a clamp may have the lower bound 0: it names `min`, or names neither bound."""
    named = {each for constant in code.co_consts if isinstance(constant, tuple) for each in constant}
    return name.startswith("clamp_min") or "min" in named or "max" not in named


def may_apply(function: Any) -> bool:
    """Whether a function is worth reading: its code names an activation, or operations that one may be written in."""
    if activation_in(function) is not None:
        return True
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and any(name in _FORMULA_NAMES for each in _codes(code) for name in each.co_names)


def activation_behind_attribute(kind: type, name: str) -> str | None:
    """An activation in what makes an attribute of a class when it is looked up: a descriptor, or `__getattr__`."""
    static = inspect.getattr_static(kind, name, None)
    if static is None:
        maker = inspect.getattr_static(kind, "__getattr__", None)
        return activation_in(maker, kind) if isinstance(maker, types.FunctionType) and not is_torch(maker) else None
    makers = [inspect.getattr_static(type(static), name, None) for name in ("__get__", "__call__")]
    held = [*makers, *(vars(static).values() if hasattr(static, "__dict__") else ())]
    return next((found for each in held if callable(each) and (found := activation_in(each, kind))), None)


def activation_named(code: types.CodeType) -> str | None:
    """The first name of an activation in byte code; None if there is none."""
    names = (name for each in _codes(code) for name in each.co_names)
    return next((name for name in names if name in CALL_NAMES or name in CLASS_NAMES), None)


def holds_activations(held: Any) -> bool:
    """Whether `held` is a table of activations: functions, modules, classes, or classes with arguments."""
    values = list(held.values()) if isinstance(held, dict) else list(held) if isinstance(held, list | tuple) else []
    firsts = [value[0] if isinstance(value, tuple) and value else value for value in values]
    return any(is_activation_class(each) or activation_of_function(each) is not None for each in firsts)


def _in_held(held: Any, owner: type | None, visited: set[object]) -> str | None:
    if isinstance(held, staticmethod | classmethod):
        held = held.__func__
    if isinstance(held, types.FunctionType):
        return None if is_torch(held) else activation_in(held, owner, visited)
    if isinstance(held, functools.partial | nn.Module | torch.jit.ScriptFunction):
        return activation_in(held, owner, visited)
    return activation_of_function(held)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def is_pure(function: types.FunctionType, visited: set[object] | None = None) -> bool:
    """Whether running a function surely changes nothing outside of it.

    It assigns no globals, attributes or items, and refers to constants, to torch and math, and to functions that are
    pure too. A list that it might append to, a logger, or `print` are reasons not to run it.
    """
    visited = set() if visited is None else visited
    if function.__code__ in visited:
        return True
    visited.add(function.__code__)
    if _stores_outside(function):
        return False
    names = {name for each in _codes(function.__code__) for name in each.co_names}
    held = [function.__globals__[name] for name in names if name in function.__globals__]
    for cell in function.__closure__ or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:  # the cell is empty
            return False
    builtin = names & set(dir(builtins)) - set(function.__globals__)
    return not builtin - _HARMLESS and all(_is_harmless(each, visited) for each in held)


_HARMLESS = frozenset(
    {"abs", "max", "min", "float", "int", "len", "pow", "round", "isinstance", "sum", "tuple", "range", "zip"}
)


def _is_harmless(held: Any, visited: set[object]) -> bool:
    if isinstance(held, types.ModuleType):
        return held.__name__.split(".")[0] in ("torch", "math", "numpy", "cmath")
    if isinstance(held, types.FunctionType):
        return is_torch(held) or is_pure(held, visited)
    if isinstance(held, bool | int | float | complex | str | bytes | type(None) | Tensor):
        return True
    if isinstance(held, type):
        return is_torch(held) or held in (float, int, bool) or issubclass(held, torch.autograd.Function)
    return is_torch(held) or is_torch(type(held))


def _stores_outside(function: types.FunctionType) -> bool:
    """Whether a function assigns globals, attributes, items or names of an outer function."""
    cells = function.__code__.co_cellvars
    return any(
        instruction.opname in _STORES and not (instruction.opname == "STORE_DEREF" and instruction.argval in cells)
        for each in _codes(function.__code__)
        for instruction in dis.get_instructions(each)
    )


_STORES = frozenset({"STORE_GLOBAL", "STORE_ATTR", "STORE_SUBSCR", "DELETE_GLOBAL", "DELETE_ATTR", "STORE_DEREF"})
