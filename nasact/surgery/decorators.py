"""The function below its decorators, and decorators put around another function."""

from __future__ import annotations

import types

from nasact.surgery.source_code import with_attributes_of


class Hidden(Exception):
    """A decorator that hides the function below it; the message names the decorator."""


def undecorated(outer: object) -> types.FunctionType:
    """The innermost function of `outer`. Raises Hidden if a decorator keeps it where it cannot be exchanged."""
    return _layers(outer)[-1]


def decorated_like(outer: object, inner: types.FunctionType) -> types.FunctionType:
    """A copy of each decorator of `outer`, the last one around `inner` instead of `undecorated(outer)`."""
    layers = _layers(outer)
    result = inner
    for layer, below in zip(reversed(layers[:-1]), reversed(layers[1:]), strict=True):
        result = _copy_with(layer, below, result)
    return result


def decorators_of(outer: object) -> list[types.FunctionType]:
    """The decorating functions of `outer`, from the outermost."""
    return _layers(outer)[:-1]


def _layers(outer: object) -> list[types.FunctionType]:
    layers: list[types.FunctionType] = []
    current = outer
    while True:
        if not isinstance(current, types.FunctionType):
            raise Hidden(_name(layers[-1] if layers else current))
        layers.append(current)
        if "__wrapped__" in vars(current):
            below: object = vars(current)["__wrapped__"]
            if not _holds(current, below):
                raise Hidden(_name(current))
        else:
            below = _only_method_in_closure(current)
            if below is None:
                return layers
        if any(below is layer for layer in layers):
            return layers
        current = below


def _name(layer: object) -> str:
    code = getattr(layer, "__code__", None)
    return code.co_qualname.split(".<locals>")[0] if code is not None else type(layer).__name__


def _holds(layer: types.FunctionType, below: object) -> bool:
    return any(contents is below for contents in _contents(layer))


def _contents(layer: types.FunctionType) -> list[object]:
    found = []
    for cell in layer.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # the cell is empty
            found.append(None)
    return found


def _only_method_in_closure(layer: types.FunctionType) -> types.FunctionType | None:
    """The function that a decorator without functools.wraps calls: the only one of its closure that takes `self`."""
    code = layer.__code__
    takes_any = code.co_argcount == 0 and bool(code.co_flags & 0x04)  # def wrapper(*args, ...)
    if not takes_any and (code.co_argcount == 0 or code.co_varnames[0] != "self"):
        return None
    methods = [
        each
        for each in _contents(layer)
        if isinstance(each, types.FunctionType) and each.__code__.co_argcount and each.__code__.co_varnames[0] == "self"
    ]
    return methods[0] if len(methods) == 1 else None


def _copy_with(layer: types.FunctionType, below: object, new: types.FunctionType) -> types.FunctionType:
    """A copy of a decorating function that calls `new` where it called `below`."""
    cells = tuple(
        types.CellType(new) if contents is below else cell
        for cell, contents in zip(layer.__closure__ or (), _contents(layer), strict=True)
    )
    made = types.FunctionType(layer.__code__, layer.__globals__, layer.__name__, layer.__defaults__, cells)
    made = with_attributes_of(layer, made)
    if "__wrapped__" in vars(made):
        vars(made)["__wrapped__"] = new
    return made
