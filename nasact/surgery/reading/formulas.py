"""Expressions that are one activation as a whole: `x * torch.sigmoid(x)`, `x.clamp(min=0)`, `torch.where(x > 0, x, 0)`.

They are recognised by what they compute, not by how they are written (elementwise.py).
"""

from __future__ import annotations

import ast
import contextlib
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nasact import activations
from nasact.surgery.elementwise import Recognition, recognise
from nasact.surgery.reading.frame import Frame
from nasact.surgery.reading.resolve import is_torch
from nasact.surgery.reading.torch_calls import COPIES, VIEWS
from nasact.surgery.reading.values import UNKNOWN, Value
from nasact.surgery.torch_activations import CALL_NAMES, CATALOGUE_NAMES
from nasact.surgery.user_function import Expression

RECTIFIERS = frozenset(
    {
        "clamp",
        "clamp_",
        "clamp_min",
        "clamp_min_",
        "clip",
        "clip_",
        "maximum",
        "fmax",
        "max",
        "where",
        "threshold",
        "heaviside",
        "masked_fill",
    }
)
"""Names of functions in whose terms activations are often written."""
_OTHER = RECTIFIERS | {
    "gt",
    "ge",
    "lt",
    "le",
    "clamp_max",
    "neg",
    "relu_",
    "exp",
    "exp_",
    "expm1",
    "erf",
    "log1p",
    "logaddexp",
    "abs",
    "abs_",
    "sign",
    "minimum",
}
_PIECEWISE = frozenset({"relu", "relu6", "hardtanh", "leaky_relu", "hard_sigmoid"})
_ZEROS = frozenset({torch.zeros, torch.zeros_like})
_MAX_NODES = 120

Evaluate = Callable[[ast.expr, Frame], Value]


@dataclass(frozen=True, eq=False)
class Formula:
    """An expression that is a function of one argument.

    `argument`: the node of the argument; `recognition`: what the expression computes; `in_place`: it overwrites the
    argument.
    """

    argument: ast.expr
    recognition: Recognition
    expression: Expression
    in_place: bool


@dataclass(eq=False)
class _Skeleton:
    """The elementwise operations of an expression, and the leaves below them."""

    frame: Frame
    evaluate: Evaluate
    leaves: list[ast.expr] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)
    overwritten: list[ast.expr] = field(default_factory=list)
    zeros: list[ast.expr] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    def add(self, node: ast.expr) -> None:
        """Add an expression: an operation whose operands are added, a constant, or a leaf."""
        if isinstance(node, ast.Constant):
            return
        if isinstance(node, ast.BinOp):
            self.add(node.left)
            self.add(node.right)
        elif isinstance(node, ast.UnaryOp):
            self.add(node.operand)
        elif isinstance(node, ast.Compare):
            self.names.add("compare")
            for each in (node.left, *node.comparators):
                self.add(each)
        elif isinstance(node, ast.Tuple | ast.List):
            for each in node.elts:
                self.add(each)
        elif isinstance(node, ast.Call):
            self._add_call(node)
        else:
            self._add_other(node)

    def _add_call(self, node: ast.Call) -> None:
        if any(isinstance(each, ast.Starred) for each in node.args) or any(
            each.arg in (None, "out") for each in node.keywords
        ):
            self.leaves.append(node)
            return
        name = _name_of_callee(node)
        subject: ast.expr | None = node.args[0] if node.args else None
        if isinstance(node.func, ast.Attribute) and not self._is_library(node.func.value):
            receiver = node.func.value
            is_object = isinstance(receiver, ast.Name | ast.Attribute) and self.evaluate(receiver, self.frame).is_known
            if not _is_method_name(name) or is_object:
                self.leaves.append(node)
                return
            subject = node.func.value
            self.add(subject)
        else:
            called = self._called(node.func)
            if called in _ZEROS:
                self.zeros.append(node)
                return
            if not (is_torch(called) or called in (max, min, abs, float, int)) or called in (None, torch.Tensor):
                self.leaves.append(node)
                return
        self.names.add(name)
        overwrites = (name.endswith("_") and not name.endswith("__")) or any(
            each.arg == "inplace" and getattr(each.value, "value", True) for each in node.keywords
        )
        if overwrites and subject is not None:
            self.overwritten.append(subject)
        for each in (*node.args, *(keyword.value for keyword in node.keywords)):
            self.add(each)

    def _called(self, node: ast.expr) -> Any:
        known = self.evaluate(node, self.frame).known if isinstance(node, ast.Name | ast.Attribute) else None
        return None if known is UNKNOWN or known.__hash__ is None else known

    def _is_library(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Name | ast.Attribute) and isinstance(
            self.evaluate(node, self.frame).known, types.ModuleType
        )

    def _add_other(self, node: ast.expr) -> None:
        if isinstance(node, ast.Attribute) and node.attr in ("dtype", "device"):
            if isinstance(node.value, ast.Name):
                self.add(node.value)
            return
        if isinstance(node, ast.Name | ast.Attribute):
            value = self.evaluate(node, self.frame)
            known = value.known
            if isinstance(known, int | float | type(None) | str) and not value.setting:
                if isinstance(node, ast.Name) and node.id in self.frame.names:
                    self.constants[node.id] = known
                return
            if isinstance(node, ast.Attribute) and is_torch_constant(known):
                return
        self.leaves.append(node)


def is_torch_constant(value: Any) -> bool:
    """Whether `value` is a dtype, a device or the like."""
    return type(value).__module__ == "torch" and type(value).__name__ in ("dtype", "device", "layout", "memory_format")


def _name_of_callee(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _is_method_name(name: str) -> bool:
    return hasattr(Tensor, name)


def contains_trigger(node: ast.AST) -> bool:
    """Whether an expression names an activation, or an operation of which activations are often made."""
    for each in ast.walk(node):
        name = each.attr if isinstance(each, ast.Attribute) else each.id if isinstance(each, ast.Name) else ""
        if name in CALL_NAMES or name in _OTHER:
            return True
        if isinstance(each, ast.Compare):
            return True
    return False


def read_formula(node: ast.expr, frame: Frame, evaluate: Evaluate) -> Formula | None:
    """The formula that an expression is; None if it is none, or if it computes no activation of the catalogue."""
    if isinstance(node, ast.Call) and _name_of_callee(node) in (VIEWS | COPIES) - RECTIFIERS:
        return None
    skeleton = _Skeleton(frame, evaluate)
    skeleton.add(node)
    argument = _single_argument(skeleton.leaves)
    if argument is None or argument is node:
        return None
    in_place = _in_place(node, skeleton, argument)
    if in_place is None:
        return None
    expression = _expression(node, skeleton, argument)
    source = frame.version.source
    recognition = recognise(expression.build(source))
    if recognition.function in _PIECEWISE and not equals(expression.build(source), recognition.function):
        return None  # clamp(min=1e-6) is no relu
    named = recognition.kind == "activation" and recognition.function in CATALOGUE_NAMES
    strong = any(name in CALL_NAMES for name in skeleton.names)
    if not (named or (strong and recognition.kind == "activation" and recognition.function != "original")):
        return None
    return Formula(argument, recognition, expression, in_place)


def equals(function: Callable[[Tensor], Tensor], name: str) -> bool:
    """Whether a formula equals a piecewise linear function of the catalogue but for rounding."""
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-7)):
        x = torch.linspace(-10.0, 10.0, 81, dtype=dtype, device="cpu")
        with torch.no_grad(), contextlib.suppress(Exception):  # a formula may support one of the two only
            expected = activations.get(name).function(x)
            return bool(torch.allclose(function(x.clone()), expected, rtol=tolerance, atol=tolerance))
    return False


def _single_argument(leaves: list[ast.expr]) -> ast.expr | None:
    """The argument of which the leaves are: one local name, however often, or one other expression, once."""
    if not leaves or len(leaves) > _MAX_NODES:
        return None
    first = leaves[0]
    if isinstance(first, ast.Name):
        return first if all(isinstance(leaf, ast.Name) and leaf.id == first.id for leaf in leaves) else None
    return first if len(leaves) == 1 else None


def _in_place(node: ast.expr, skeleton: _Skeleton, argument: ast.expr) -> bool | None:
    """Whether the expression overwrites its argument; None if it does so below its last operation."""
    same = [each for each in skeleton.overwritten if _same(each, argument)]
    if not same:
        return False
    receiver = node.func.value if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else None
    first = node.args[0] if isinstance(node, ast.Call) and node.args else None
    return True if len(same) == 1 and same[0] in (receiver, first) else None


def _same(a: ast.expr, b: ast.expr) -> bool:
    return a is b or (isinstance(a, ast.Name) and isinstance(b, ast.Name) and a.id == b.id)


def _expression(node: ast.expr, skeleton: _Skeleton, argument: ast.expr) -> Expression:
    """The expression as a function of its argument; also other nodes may read it, such as `x.dtype`."""
    index = skeleton.frame.index
    leaves = {index(leaf) for leaf in skeleton.leaves}
    leaves |= {index(each) for each in ast.walk(node) if isinstance(each, ast.Name) and _same(each, argument)}
    zeros = tuple(index(each) for each in skeleton.zeros)
    return Expression(index(node), tuple(sorted(leaves)), tuple(skeleton.constants.items()), zeros)
