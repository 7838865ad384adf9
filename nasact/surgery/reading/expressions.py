"""Reads the expressions of a function: what is known about their values, and what they do with the results of sites."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from torch import nn

from nasact.surgery.channels import Channels
from nasact.surgery.reading import resolve
from nasact.surgery.reading.frame import Frame, consume, keep
from nasact.surgery.reading.truth import compared, truth
from nasact.surgery.reading.values import (
    ANYTHING,
    UNKNOWN,
    FoundSite,
    Storage,
    Value,
    applied_by_value,
    constant,
    join,
    overwrite,
    tensor,
)

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}
_VIEW_ATTRIBUTES = frozenset({"T", "mT", "H", "mH", "data", "real"})
_SIZE_ATTRIBUTES = frozenset({"shape", "ndim", "dtype", "device", "is_cuda", "requires_grad"})


class ExpressionReader:
    """Reads expressions. Calls, and formulas that are one activation as a whole, are read by its subclasses."""

    def call(self, node: ast.Call, frame: Frame) -> Value:
        """The value of a call."""
        raise NotImplementedError

    def formula(self, node: ast.expr, frame: Frame) -> Value | None:
        """The value of an expression that computes an activation as a whole; None for another expression."""
        raise NotImplementedError

    def refuse_default(self, frame: Frame, node: ast.AST, applied: str) -> None:
        """Record an inner function that has an activation as the default of an argument."""
        raise NotImplementedError

    def property_value(self, held: resolve.Property, frame: Frame) -> Value:
        """The value of a property of a module."""
        raise NotImplementedError

    def members(self, node: ast.expr, frame: Frame) -> tuple[Value, ...] | None:
        """What a loop over `node` goes through, if that is a known sequence of modules; else None."""
        raise NotImplementedError

    def function_body(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, frame: Frame) -> None:
        """Read a function that is defined inside of another."""
        raise NotImplementedError

    def evaluate(self, node: ast.expr, frame: Frame) -> Value:
        """Read an expression and return what is known about its value."""
        whole = self.formula(node, frame)
        if whole is not None:
            return whole
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is not None:
            value: Value = method(node, frame)
            return value
        for child in child_expressions(node):
            value = self.evaluate(child, frame)
            consume(value, "other")
            keep(value)
        return ANYTHING

    def _call(self, node: ast.Call, frame: Frame) -> Value:
        return self.call(node, frame)

    def _constant(self, node: ast.Constant, frame: Frame) -> Value:
        return constant(node.value)

    def _name(self, node: ast.Name, frame: Frame) -> Value:
        if node.id in frame.names:
            value = frame.names[node.id]
            if frame.nested:
                keep(value)
            is_number = isinstance(value.known, int | float) and not isinstance(value.known, bool)
            if is_number and not value.setting and frame.version.source.assignments(node.id) > 1:
                return replace(value, setting=True)  # it may be another number when the expression runs
            return value
        code = frame.version.function.__code__
        if node.id in code.co_varnames or node.id in code.co_cellvars:
            return ANYTHING
        return resolve.name(frame.version.function, node.id)

    def _attribute(self, node: ast.Attribute, frame: Frame) -> Value:
        base = self.evaluate(node.value, frame)
        return self.attribute_of(base, node.attr, frame)

    def attribute_of(self, base: Value, name: str, frame: Frame) -> Value:
        """The value of an attribute of a value."""
        if not base.is_known:
            if name in _SIZE_ATTRIBUTES:
                return Value(size=True)
            return base.reshaped() if name in _VIEW_ATTRIBUTES else ANYTHING
        if isinstance(base.known, nn.Module) and name.startswith("__") and not name.endswith("__"):
            name = f"_{(frame.version.source.class_name or '').lstrip('_')}{name}"
        value = resolve.attribute(base, name)
        return self.property_value(value.known, frame) if isinstance(value.known, resolve.Property) else value

    def _subscript(self, node: ast.Subscript, frame: Frame) -> Value:
        base, index = self.evaluate(node.value, frame), self.evaluate(node.slice, frame)
        found = resolve.item(base, index)
        if found is not None:
            return found
        if base.applies:
            return Value(applies=base.applies)
        return ANYTHING if base.is_known else base.reshaped()

    def _slice(self, node: ast.Slice, frame: Frame) -> Value:
        values = [
            constant(None) if part is None else self.evaluate(part, frame)
            for part in (node.lower, node.upper, node.step)
        ]
        parts = [value.known for value in values]
        if any(value.setting for value in values):
            # `layers[: self.depth]`: the depth may change
            return Value(known=slice(*parts), setting=True) if parts[0] in (None, 0) and parts[2] is None else ANYTHING
        known = all(part is None or (isinstance(part, int) and not isinstance(part, bool)) for part in parts)
        return constant(slice(*parts)) if known else ANYTHING

    def _tuple(self, node: ast.Tuple | ast.List, frame: Frame) -> Value:
        values = [self.evaluate(element, frame) for element in node.elts]
        for value in values:
            keep(value)
        starred = any(isinstance(element, ast.Starred) for element in node.elts)
        return Value(items=tuple(values)) if not starred else Value(results=Value(items=tuple(values)).every_result())

    _list = _tuple

    def _starred(self, node: ast.Starred, frame: Frame) -> Value:
        return self.evaluate(node.value, frame)

    def _dict(self, node: ast.Dict, frame: Frame) -> Value:
        values = [self.evaluate(each, frame) for each in (*node.keys, *node.values) if each is not None]
        for value in values:
            keep(value)
        applies = next((name for value in values if (name := applied_by_value(value))), "")
        return Value(results=Value(items=tuple(values)).every_result(), applies=applies)

    def _namedexpr(self, node: ast.NamedExpr, frame: Frame) -> Value:
        value = self.evaluate(node.value, frame)
        self.bind(node.target, value, frame)
        return value

    def bind(self, target: ast.expr, value: Value, frame: Frame) -> None:
        """Assign a value to a target."""
        if isinstance(target, ast.Name):
            if value.storage is not None:
                value.storage.shared = value.storage.shared or value.storage.bound
                value.storage.bound = True
            frame.names[target.id] = value
        elif isinstance(target, ast.Tuple | ast.List):
            items = value.items
            if items is None or len(items) != len(target.elts):
                part = replace(value.reshaped(), known=UNKNOWN)
                items = (part,) * len(target.elts)
            for element, item in zip(target.elts, items, strict=True):
                self.bind(element.value if isinstance(element, ast.Starred) else element, item, frame)
        else:
            for child in child_expressions(target):
                held = self.evaluate(child, frame)
                if isinstance(target, ast.Subscript) and child is target.value:
                    self.overwritten(child, held, frame)
            keep(value)
            container = target.value if isinstance(target, ast.Subscript) else None
            if isinstance(container, ast.Name) and container.id in frame.names:
                held = frame.names[container.id]
                results = held.every_result() | value.every_result()
                frame.names[container.id] = replace(held, items=None, known=UNKNOWN, results=results)
            else:
                consume(value, "other")

    def overwritten(self, node: ast.expr, value: Value, frame: Frame) -> None:
        """Record that an operation overwrites the tensor `value`, which `node` refers to."""
        overwrite(value)
        if isinstance(node, ast.Name):
            for site in frame.arguments.get(node.id, ()):
                site.copies_input = True

    def _unaryop(self, node: ast.UnaryOp, frame: Frame) -> Value:
        value = self.evaluate(node.operand, frame)
        if isinstance(node.op, ast.Not):
            known = truth(value)
            return ANYTHING if known is None else constant(not known)
        if isinstance(value.known, int | float) and isinstance(node.op, ast.USub):
            return replace(value, known=-value.known)
        return tensor(results=value.every_result(), channels=value.channels, parameter=value.parameter)

    def _binop(self, node: ast.BinOp, frame: Frame) -> Value:
        left, right = self.evaluate(node.left, frame), self.evaluate(node.right, frame)
        return self.arithmetic(left, right, node.op)

    def arithmetic(self, left: Value, right: Value, op: ast.operator) -> Value:
        """The value of `left op right`."""
        numbers = [isinstance(value.known, int | float) for value in (left, right)]
        if all(numbers) and type(op) in _ARITHMETIC:
            try:
                return constant(_ARITHMETIC[type(op)](left.known, right.known), setting=left.setting or right.setting)
            except (ArithmeticError, ValueError):
                return ANYTHING
        if left.is_number and right.is_number:
            return Value(size=True)
        if left.items is not None and right.items is not None and isinstance(op, ast.Add):
            return Value(items=(*left.items, *right.items))
        channels = left.channels or right.channels
        both = left.parameter and right.parameter
        for value, other in ((left, right), (right, left)):
            if (other.is_number or (other.is_weight and value.results)) and not isinstance(op, ast.MatMult):
                return tensor(results=value.every_result(), channels=channels, parameter=both)
            product = isinstance(op, ast.Mult | ast.MatMult) and not other.is_weight
            consume(value, "product" if product else "other")
        return tensor(channels=None if isinstance(op, ast.MatMult) else channels, parameter=both)

    def _compare(self, node: ast.Compare, frame: Frame) -> Value:
        operands = (node.left, *node.comparators)
        values = [self.evaluate(each, frame) for each in operands]
        against_number = len(values) == 2 and values[1].is_number
        for value in values if not against_number else ():
            consume(value, "other")
        if any(is_class_of(each, frame.version.owner_name) for each in operands):
            frame.version.compares_class = node.lineno
        known = compared(values[0], values[1], node.ops[0]) if len(values) == 2 else None
        if known is not None:
            return constant(known)
        results = values[0].every_result() if against_number else frozenset()
        return Value(parameter=all(value.parameter for value in values), results=results)

    def _boolop(self, node: ast.BoolOp, frame: Frame) -> Value:
        decided: list[bool | None] = []
        values: list[Value] = []
        stop = isinstance(node.op, ast.Or)
        for each in node.values:
            inner = frame.inside(taken=stop not in decided) if stop in decided else frame
            value = self.evaluate(each, inner)
            values.append(value)
            decided.append(truth(value))
        # `a or b` is the first value that is true, else the last
        possible = [value for value, known in zip(values[:-1], decided[:-1], strict=True) if known is not (not stop)]
        possible.append(values[-1])
        return possible[0] if truth(possible[0]) is stop or len(possible) == 1 else join(possible)

    def _ifexp(self, node: ast.IfExp, frame: Frame) -> Value:
        known = truth(self.evaluate(node.test, frame))
        branches = [frame.inside(taken=known is not False), frame.inside(taken=known is not True)]
        values = [self.evaluate(each, inner) for each, inner in zip((node.body, node.orelse), branches, strict=True)]
        return values[0] if known is True else values[1] if known is False else join(values)

    def _lambda(self, node: ast.Lambda, frame: Frame) -> Value:
        self.function_body(node, frame)
        return ANYTHING

    def _listcomp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp, frame: Frame) -> Value:
        inner = frame.inside(nested=True)
        inner.nested = frame.nested  # a comprehension runs at once: it keeps nothing
        elements = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        results = list(self._comprehension(node.generators, elements, inner))
        for value in results:
            keep(value)
        return Value(results=Value(items=tuple(results)).every_result())

    _setcomp = _generatorexp = _dictcomp = _listcomp

    def _comprehension(
        self, generators: list[ast.comprehension], elements: list[ast.expr], frame: Frame
    ) -> Iterator[Value]:
        if not generators:
            for element in elements:
                yield self.evaluate(element, frame)
            return
        first, rest = generators[0], generators[1:]
        for inner, item in self.turns(first, first.iter, frame):
            self.bind(first.target, item, inner)
            for test in first.ifs:
                consume(self.evaluate(test, inner), "other")
            yield from self._comprehension(rest, elements, inner)

    def turns(self, loop: ast.AST, iterated: ast.expr, frame: Frame) -> Iterator[tuple[Frame, Value]]:
        """The turns of a loop: one per module of a known sequence of modules, else one that stands for all."""
        found = self.members(iterated, frame)
        if found is None:
            yield frame, self.evaluate(iterated, frame).reshaped()
            return
        index = frame.index(loop)
        lengths = frame.version.loop_lengths
        lengths[index] = max(lengths.get(index, 0), len(found))
        for turn, item in enumerate(found):
            taken = frame.taken and item.in_use
            inner = replace(frame, loops=(*frame.loops, index), turns=(*frame.turns, turn), taken=taken)
            yield inner, item

    def _joinedstr(self, node: ast.JoinedStr, frame: Frame) -> Value:
        values = [self.evaluate(child, frame) for child in node.values]
        if all(isinstance(value.known, str | int) for value in values):
            return constant("".join(str(value.known) for value in values))
        return ANYTHING

    def _formattedvalue(self, node: ast.FormattedValue, frame: Frame) -> Value:
        value = self.evaluate(node.value, frame)
        return ANYTHING if node.format_spec is not None or node.conversion != -1 else value


def is_class_of(node: ast.expr, name: str) -> bool:
    """Whether an expression is `type(name)` or `name.__class__`."""
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "type"
        and len(node.args) == 1
    ):
        return isinstance(node.args[0], ast.Name) and node.args[0].id == name
    if not isinstance(node, ast.Attribute) or node.attr != "__class__":
        return False
    return isinstance(node.value, ast.Name) and node.value.id == name


def child_expressions(node: ast.AST) -> Iterator[ast.expr]:
    """The expressions directly below a node; those of keywords and of formatted values too."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            yield child
        elif isinstance(child, ast.keyword):
            yield child.value
        elif isinstance(child, ast.comprehension):
            yield from child_expressions(child)


def site_value(site: FoundSite, channels: Channels | None) -> Value:
    """The value of the result of a site."""
    storage = Storage(made_by=site)
    return Value(results=frozenset({site}), channels=channels, parameter=site.parameter, storage=storage)
