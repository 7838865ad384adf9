"""How a function of the user's code is found again in another process: by its class, module, or another function."""

from __future__ import annotations

import importlib
import pickle
from typing import Any

from nasact.surgery.decorators import undecorated
from nasact.surgery.source_code import code_digest

Locator = tuple[Any, ...]
"""("class", class, name), ("module", module, qualified name) or ("name", locator of a function, name in it).

A class that surgery has made is given as ("made", function, class, arguments).
"""

MADE_BY = "_nasact_made_by"
"""The attribute of a class that surgery has made: (function, base class, rewrites)."""


def of_method(cls: type, name: str) -> Locator:
    """The locator of a function that a class holds."""
    return ("class", _class_locator(cls), name)


def _class_locator(cls: type) -> Any:
    if MADE_BY not in vars(cls):
        return cls
    function, base, arguments = vars(cls)[MADE_BY]
    return ("made", function, _class_locator(base), arguments)


def _locate_class(locator: Any) -> type:
    if isinstance(locator, type):
        return locator
    _, function, base, arguments = locator
    made: type = function(_locate_class(base), arguments)
    return made


def of_function(function: Any) -> Locator | None:
    """The locator of a function that its module holds; None for a local one."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    locator = ("module", module, name)
    try:
        return locator if locate(locator) is function else None
    except (ImportError, AttributeError, ValueError):
        return None


def in_function(parent: Locator | None, name: str) -> Locator | None:
    """The locator of what `name` refers to in another function."""
    return None if parent is None else ("name", parent, name)


def locate(locator: Locator) -> Any:
    """The object of a locator, with its decorators."""
    kind = locator[0]
    if kind == "class":
        held = vars(_locate_class(locator[1]))[locator[2]]
        return held.__func__ if isinstance(held, staticmethod | classmethod) else held
    if kind == "module":
        found: Any = importlib.import_module(locator[1])
        for part in locator[2].split("."):
            found = getattr(found, part)
        return found
    parent, name = undecorated(locate(locator[1])), locator[2]
    code = parent.__code__
    if name in code.co_freevars:
        return (parent.__closure__ or ())[code.co_freevars.index(name)].cell_contents
    return parent.__globals__[name]


def locate_function(locator: Locator | None, digest: str, what: str) -> Any:
    """The function of a locator, with its decorators. Raises UnpicklingError if its code is not that of `digest`."""
    if locator is None:
        raise pickle.UnpicklingError(f"{what} cannot be found again: it is local to another function")
    try:
        outer = locate(locator)
        function = undecorated(outer)
    except (ImportError, AttributeError, KeyError, ValueError) as error:
        raise pickle.UnpicklingError(f"{what} cannot be found: {error}") from None
    if code_digest(function.__code__) != digest:
        raise pickle.UnpicklingError(f"{what} has changed since the network was saved: save its state_dict instead")
    return outer
