"""Facts about functions that a reading asks for: their parameters, their defaults, what they hold."""

from __future__ import annotations

import ast
import dis
import types
from typing import Any

import torch
from torch import Tensor

from nasact.surgery.reading import resolve
from nasact.surgery.reading.evidence import activation_in
from nasact.surgery.reading.frame import keep
from nasact.surgery.reading.values import Value
from nasact.surgery.reading.versions import FunctionVersion


def activation_behind(outer: Any, owner: type) -> str | None:
    """An activation in the functions that a decorator's object holds."""
    held = [getattr(outer, "__wrapped__", None), *vars(outer).values()] if hasattr(outer, "__dict__") else []
    cells = getattr(outer, "__closure__", None) or ()
    for cell in cells:
        try:
            held.append(cell.cell_contents)
        except ValueError:
            continue
    return next((name for each in held if callable(each) and (name := activation_in(each, owner))), None)


def assigns(nodes: tuple[ast.AST, ...], name: str) -> bool:
    return any(isinstance(node, ast.Name) and node.id == name and not isinstance(node.ctx, ast.Load) for node in nodes)


def defaults(function: types.FunctionType) -> dict[str, Any]:
    code, defaults = function.__code__, function.__defaults__ or ()
    positional = code.co_varnames[: code.co_argcount]
    named = dict(zip(positional[len(positional) - len(defaults) :], defaults, strict=True)) if defaults else {}
    return named | dict(function.__kwdefaults__ or {})


def bind(version: FunctionVersion, values: list[tuple[str | None, Value]]) -> dict[str, Value]:
    """The values of a function's parameters in a call."""
    node = version.source.node.args
    names = [each.arg for each in (*node.posonlyargs, *node.args)][1 if version.as_method else 0 :]
    bound: dict[str, Value] = {}
    for index, (name, value) in enumerate(values):
        if name is None and index < len(names):
            bound[names[index]] = value
        elif name:
            bound[name] = value
        keep(value)
    for name, default in defaults(version.function).items():
        if name not in bound:
            bound[name] = resolve.constant(default)
    known = {*names, *(each.arg for each in node.kwonlyargs)}
    return {name: value for name, value in bound.items() if name in known}


def takes_one(function: types.FunctionType, skip: int) -> bool:
    """Whether a function can be called with one positional argument, after `skip` others."""
    code = function.__code__
    required = code.co_argcount - len(function.__defaults__ or ())
    return required in (skip + 1,) and not (
        code.co_kwonlyargcount and len(function.__kwdefaults__ or {}) < code.co_kwonlyargcount
    )


def uses_first(function: types.FunctionType) -> bool:
    """Whether a method uses its first argument, the module."""
    first = function.__code__.co_varnames[0]
    return first in function.__code__.co_cellvars or any(
        instruction.argval == first and instruction.opname.startswith("LOAD")
        for instruction in dis.get_instructions(function)
    )


def is_function_apply(held: Any) -> bool:
    """Whether `held` is the `apply` of an autograd.Function."""
    owner = getattr(held, "__self__", None)
    return (
        isinstance(owner, type)
        and issubclass(owner, torch.autograd.Function)
        and getattr(held, "__name__", "") == "apply"
    )


def is_tensor_function(held: Any) -> bool:
    """Whether `held` is a function of torch, or an unbound method of its tensors."""
    return resolve.is_torch(held) or getattr(held, "__objclass__", None) in (Tensor, getattr(Tensor, "__base__", None))
