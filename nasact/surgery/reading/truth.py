"""The truth of tests on settings of the model, as far as it cannot change between two passes."""

from __future__ import annotations

import ast
import types
from typing import Any

from torch import Tensor, nn

from nasact.surgery.reading.values import UNKNOWN, Value

_PLAIN = (bool, str, type(None))


def truth(value: Value) -> bool | None:
    """Whether a value is true; None if it is unknown, or a number that may be scheduled."""
    held = value.known
    if held is UNKNOWN or value.setting:
        return None
    if isinstance(held, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        return len(held) > 0
    if isinstance(held, nn.Module | types.FunctionType | types.BuiltinFunctionType | type):
        return True
    return bool(held) if isinstance(held, (*_PLAIN, int, float, list, tuple, dict)) else None


def compared(left: Value, right: Value, op: ast.cmpop) -> bool | None:
    """The result of a comparison of settings; None if it is unknown."""
    a, b = left.known, right.known
    if isinstance(op, ast.Is | ast.IsNot):
        same = _identical(left, right)
        return None if same is None else same is isinstance(op, ast.Is)
    if a is UNKNOWN or b is UNKNOWN or left.setting or right.setting:
        return None
    if (
        isinstance(op, ast.Eq | ast.NotEq)
        and isinstance(a, (*_PLAIN, int, float))
        and isinstance(b, (*_PLAIN, int, float))
    ):
        return (a == b) is isinstance(op, ast.Eq)
    if (
        isinstance(op, ast.In | ast.NotIn)
        and isinstance(a, _PLAIN)
        and isinstance(b, list | tuple | dict | set | frozenset)
    ):
        return (a in b) is isinstance(op, ast.In)
    return None


def _identical(left: Value, right: Value) -> bool | None:
    for value, other in ((left, right), (right, left)):
        if other.known is None:
            if value.known is not UNKNOWN:
                return value.known is None
            return False if value.parameter or value.storage is not None or value.size else None
    if left.known is UNKNOWN or right.known is UNKNOWN:
        return None
    return left.known is right.known


def is_instance(value: Value, kinds: Any) -> bool | None:
    """The result of isinstance; None if it is unknown."""
    every = kinds if isinstance(kinds, tuple) else (kinds,)
    if not all(isinstance(kind, type) for kind in every):
        return None
    held = value.known
    if held is UNKNOWN:
        return False if value.size and all(issubclass(kind, Tensor) for kind in every) else None
    if isinstance(held, (nn.Module, *_PLAIN)):
        return isinstance(held, every)
    return None
