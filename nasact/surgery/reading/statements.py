"""Reads the statements of a function in the order in which they run."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from nasact.surgery.reading import resolve
from nasact.surgery.reading.expressions import ExpressionReader, child_expressions
from nasact.surgery.reading.frame import Frame, consume, keep
from nasact.surgery.reading.truth import truth
from nasact.surgery.reading.values import ANYTHING, UNKNOWN, Value, applied_by_value, constant, tensor, without_object

MAX_TURNS = 1000
"""Loops over more modules are read as one turn."""


class StatementReader(ExpressionReader):
    """Reads statements; a loop over modules is read turn by turn, so that each turn has its own sites."""

    def execute(self, body: Sequence[ast.stmt], frame: Frame) -> bool:
        """Read statements in order; return whether they surely end the function or the present turn of a loop."""
        ended = False
        for statement in body:
            if ended and frame.taken:
                frame = frame.inside(taken=False)
            frame.statement, frame.rebound = statement, frozenset()
            method = getattr(self, f"_do_{type(statement).__name__.lower()}", None)
            if method is not None:
                ended = bool(method(statement, frame)) or ended
            else:
                for child in child_expressions(statement):
                    value = self.evaluate(child, frame)
                    consume(value, "other")
                    keep(value)
        return ended

    def _do_assign(self, node: ast.Assign, frame: Frame) -> None:
        frame.rebound = frozenset(target.id for target in node.targets if isinstance(target, ast.Name))
        value = self.evaluate(node.value, frame)
        for target in node.targets:
            self.bind(target, value, frame)

    def _do_annassign(self, node: ast.AnnAssign, frame: Frame) -> None:
        if node.value is not None:
            frame.rebound = frozenset({node.target.id}) if isinstance(node.target, ast.Name) else frozenset()
            self.bind(node.target, self.evaluate(node.value, frame), frame)

    def _do_augassign(self, node: ast.AugAssign, frame: Frame) -> None:
        value = self.evaluate(node.value, frame)
        if not isinstance(node.target, ast.Name):
            for child in child_expressions(node.target):
                self.overwritten(child, self.evaluate(child, frame), frame)
            consume(value, "product" if isinstance(node.op, ast.Mult) else "other")
            return
        before = frame.names.get(node.target.id, ANYTHING)
        self.overwritten(node.target, before, frame)
        result = self.arithmetic(before, value, node.op)
        # a tensor stays the same object
        frame.names[node.target.id] = replace(result, storage=before.storage) if not result.is_known else result

    def _do_return(self, node: ast.Return, frame: Frame) -> bool:
        if node.value is not None:
            frame.rebound = None
            value = self.evaluate(node.value, frame)
            if frame.taken:
                frame.returned.append(value)
        return True

    def _do_raise(self, node: ast.Raise, frame: Frame) -> bool:
        for child in child_expressions(node):
            self.evaluate(child, frame)
        return True

    def _do_continue(self, node: ast.Continue, frame: Frame) -> bool:
        return True

    _do_break = _do_continue

    def _do_if(self, node: ast.If, frame: Frame) -> bool:
        test = self.evaluate(node.test, frame)
        consume(test, "other")
        known = truth(test)
        branches = [frame.inside(taken=known is not False), frame.inside(taken=known is not True)]
        ended = [self.execute(body, inner) for body, inner in zip((node.body, node.orelse), branches, strict=True)]
        possible = [known is not False, known is not True]
        going_on = [
            inner for inner, is_possible, end in zip(branches, possible, ended, strict=True) if is_possible and not end
        ]
        frame.merge(going_on or branches)
        return all(end for end, is_possible in zip(ended, possible, strict=True) if is_possible)

    def _do_for(self, node: ast.For | ast.AsyncFor, frame: Frame) -> bool:
        before = frame.inside()
        turns = list(self.turns(node, node.iter, frame))
        if len(turns) == 1 and turns[0][0] is frame:
            self._forget_assigned(node, frame)
        for inner, item in turns:
            inner.names = frame.names
            self.bind(node.target, item, inner)
            self.execute(node.body, inner)
        after = frame.inside()
        frame.merge([before, after] if not turns or turns[0][0] is frame else [after])
        return self.execute(node.orelse, frame)

    _do_asyncfor = _do_for

    def _do_while(self, node: ast.While, frame: Frame) -> bool:
        before = frame.inside()
        self._forget_assigned(node, frame)
        consume(self.evaluate(node.test, frame), "other")
        self.execute(node.body, frame)
        frame.merge([before, frame.inside()])
        self.execute(node.orelse, frame)
        return False

    def _forget_assigned(self, loop: ast.AST, frame: Frame) -> None:
        """In a later turn, a name that the loop assigns may be another object than in the first."""
        for node in ast.walk(loop):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in frame.names:
                keep(frame.names[node.id])
                frame.names[node.id] = without_object(frame.names[node.id])

    def _do_with(self, node: ast.With | ast.AsyncWith, frame: Frame) -> bool:
        for item in node.items:
            value = self.evaluate(item.context_expr, frame)
            if item.optional_vars is not None:
                self.bind(item.optional_vars, value.reshaped() if not value.is_known else ANYTHING, frame)
        return self.execute(node.body, frame)

    _do_asyncwith = _do_with

    def _do_try(self, node: ast.Try | ast.TryStar, frame: Frame) -> bool:
        before = frame.inside()
        ended = self.execute(node.body, frame)
        ended = self.execute(node.orelse, frame) or ended
        branches = [frame.inside()] if not ended else []
        for handler in node.handlers:
            inner = before.inside()
            if not self.execute(handler.body, inner):
                branches.append(inner)
        if branches:
            frame.merge(branches)
        return self.execute(node.finalbody, frame) or not branches

    _do_trystar = _do_try

    def _do_match(self, node: ast.Match, frame: Frame) -> None:
        consume(self.evaluate(node.subject, frame), "other")
        branches = [frame.inside()]
        for case in node.cases:
            inner = frame.inside()
            for name in ast.walk(case.pattern):
                captured = getattr(name, "name", None)
                if isinstance(captured, str):
                    inner.names[captured] = ANYTHING
            if case.guard is not None:
                self.evaluate(case.guard, inner)
            if not self.execute(case.body, inner):
                branches.append(inner)
        frame.merge(branches)

    def _do_functiondef(self, node: ast.FunctionDef | ast.AsyncFunctionDef, frame: Frame) -> None:
        for each in (*node.decorator_list, *node.args.defaults, *(d for d in node.args.kw_defaults if d is not None)):
            self.evaluate(each, frame)
        self.function_body(node, frame)
        frame.names[node.name] = ANYTHING

    _do_asyncfunctiondef = _do_functiondef

    def _do_classdef(self, node: ast.ClassDef, frame: Frame) -> None:
        self.execute(node.body, frame.inside(nested=True))

    def _do_importfrom(self, node: ast.ImportFrom, frame: Frame) -> None:
        module = sys.modules.get(node.module or "") if node.level == 0 else None
        for alias in node.names:
            found = vars(module).get(alias.name, UNKNOWN) if module is not None else UNKNOWN
            frame.names[alias.asname or alias.name] = ANYTHING if found is UNKNOWN else constant(found)

    def _do_import(self, node: ast.Import, frame: Frame) -> None:
        for alias in node.names:
            name = alias.name if alias.asname else alias.name.split(".")[0]
            module = sys.modules.get(name)
            frame.names[alias.asname or name] = ANYTHING if module is None else constant(module)

    def _do_delete(self, node: ast.Delete, frame: Frame) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                frame.names.pop(target.id, None)
            else:
                for child in child_expressions(target):
                    self.evaluate(child, frame)

    def function_body(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, frame: Frame) -> None:
        """Read a function that is defined inside of another; its calls belong to the outer one."""
        # a function may run after its loop: its calls do not count the turns
        inner = replace(frame.inside(nested=True), loops=(), turns=())
        arguments = node.args
        for default in (*arguments.defaults, *(each for each in arguments.kw_defaults if each is not None)):
            applied = applied_by_value(self.evaluate(default, frame))
            if applied:
                self.refuse_default(frame, node, applied)
        for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
            if each is not None:
                inner.names[each.arg] = ANYTHING
                inner.shadowed = inner.shadowed or each.arg == frame.version.owner_name
        if isinstance(node, ast.Lambda):
            inner.statement, inner.rebound = node, None
            consume(self.evaluate(node.body, inner), "other")
            return
        inner.returned = []
        self.execute(node.body, inner)
        for value in inner.returned:
            consume(value, "other")

    def members(self, node: ast.expr, frame: Frame) -> tuple[Value, ...] | None:
        """What a loop over `node` goes through, if that is a known sequence of modules or functions; else None."""
        found = self._members_of_call(node, frame) if isinstance(node, ast.Call) else None
        if found is None and not isinstance(node, ast.Call):
            found = resolve.members(self.evaluate(node, frame))
        return found if found is None or len(found) <= MAX_TURNS else None

    def _members_of_call(self, node: ast.Call, frame: Frame) -> tuple[Value, ...] | None:
        arguments = node.args
        if isinstance(node.func, ast.Attribute) and not arguments:
            return _members_of_method(self.evaluate(node.func.value, frame), node.func.attr)
        if not isinstance(node.func, ast.Name) or node.func.id in frame.names:
            return None
        kind = resolve.name(frame.version.function, node.func.id).known
        if kind is zip and arguments:
            columns = [self.members(each, frame) for each in arguments]
            known = [column for column in columns if column is not None]
            if not known:
                return None
            rest = [
                self.evaluate(each, frame).reshaped() if column is None else ANYTHING
                for each, column in zip(arguments, columns, strict=True)
            ]
            count = min(map(len, known))
            return tuple(
                Value(
                    items=tuple(
                        column[turn] if column is not None else other
                        for column, other in zip(columns, rest, strict=True)
                    )
                )
                for turn in range(count)
            )
        if kind is range:
            return self._range_over_modules(node, frame)
        if len(arguments) != 1 or kind not in (enumerate, reversed, list, tuple, iter):
            return None
        inner = self.members(arguments[0], frame)
        if inner is None:
            return None
        if kind is enumerate:
            return tuple(Value(items=(constant(index), item)) for index, item in enumerate(inner))
        return inner[::-1] if kind is reversed else inner

    def _range_over_modules(self, node: ast.Call, frame: Frame) -> tuple[Value, ...] | None:
        """The turns of `range(n)` in a loop that indexes modules by the turn."""
        values = [self.evaluate(each, frame) for each in node.args]
        bounds = [value.known for value in values]
        changes = any(value.setting for value in values)
        if changes and len(bounds) > 1:
            return None
        if not all(isinstance(bound, int) and not isinstance(bound, bool) for bound in bounds) or not bounds:
            return None
        turns = range(*bounds[:3])
        loop = frame.statement
        target = loop.target if isinstance(loop, ast.For) else None
        if isinstance(target, ast.Tuple) and len(target.elts) == 2 and isinstance(node, ast.Call):
            target = target.elts[1]  # `for turn, i in enumerate(range(n))`, as in a function that surgery has rewritten
        if not isinstance(loop, ast.For) or not isinstance(target, ast.Name) or len(turns) > MAX_TURNS:
            return None
        for each in ast.walk(loop):
            if isinstance(each, ast.Subscript) and any(
                isinstance(part, ast.Name) and part.id == target.id for part in ast.walk(each.slice)
            ):
                held = self.evaluate(each.value, frame).known if _is_path(each.value) else None
                if isinstance(held, nn.Sequential | nn.ModuleList) and max(turns, default=-1) < len(held):
                    every = range(len(held)) if changes else turns
                    return tuple(replace(constant(turn), in_use=turn in turns) for turn in every)
        return None


def _is_path(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) or (isinstance(node, ast.Attribute) and _is_path(node.value))


def _members_of_method(base: Value, name: str) -> tuple[Value, ...] | None:
    """The modules of `base.children()`, or those of a ModuleDict's `values()` and `items()`."""
    held = base.known
    if not isinstance(held, nn.Module):
        return None
    names = [key for key, child in resolve.children(held).items() if child is not None]
    values = tuple(resolve.module_attribute(held, key, base.slot) for key in names)
    if name == "children" or (name == "values" and isinstance(held, nn.ModuleDict)):
        return values
    if name == "named_children" or (name == "items" and isinstance(held, nn.ModuleDict)):
        return tuple(Value(items=(constant(key), value)) for key, value in zip(names, values, strict=True))
    return None


def unknown_tensor() -> Value:
    """The value of a new tensor of which nothing is known."""
    return tensor()
