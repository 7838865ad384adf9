"""Reads calls of torch, and makes sites of those that apply an activation."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from nasact.reserved_names import ORIGINAL
from nasact.surgery import torch_activations
from nasact.surgery.elementwise import recognise
from nasact.surgery.reading.expressions import site_value
from nasact.surgery.reading.formulas import RECTIFIERS, contains_trigger, read_formula
from nasact.surgery.reading.frame import Frame, consume, keep
from nasact.surgery.reading.statements import StatementReader
from nasact.surgery.reading.torch_calls import method_result
from nasact.surgery.reading.values import ANYTHING, FoundSite, Value
from nasact.surgery.reading.versions import CallEdit
from nasact.surgery.source_code import FunctionSource, code_digest
from nasact.surgery.torch_activations import CALL_NAMES, REFUSED_CALLS, FunctionalActivation
from nasact.surgery.user_function import Expression, Recipe, UserFunction

MAX_DETAIL = 80
_OPERATIONS = (ast.BinOp, ast.UnaryOp, ast.Call)


@dataclass(frozen=True)
class Refusal:
    """An activation that cannot be replaced: the path of the module whose code applies it, and the reason."""

    path: str
    reason: str


@dataclass(frozen=True)
class Applied:
    """An activation that a call applies: the module that computes it alone, and how messages call it.

    `exact`: the catalogue function `function` gives the same bits; otherwise it is equal up to rounding.
    """

    original: nn.Module
    function: str
    detail: str
    base: str
    in_place: bool = False
    note: str = ""
    exact: bool = True


class CallSiteReader(StatementReader):
    """Collects the sites of calls."""

    def __init__(self) -> None:
        self.sites: list[FoundSite] = []
        self.refusals: dict[tuple[str, str], Refusal] = {}
        self.called = True
        self._triggers: dict[int, frozenset[int]] = {}

    def refuse(self, path: str, reason: str) -> None:
        """Record an activation that cannot be replaced."""
        self.refusals.setdefault((path, reason), Refusal(path, reason))

    def refuse_call(self, frame: Frame, node: ast.AST, reason: str) -> None:
        """Record a call that cannot be replaced, with its line."""
        if frame.taken:
            self.refuse(frame.path, f"line {getattr(node, 'lineno', 0)}: {reason}")

    def refuse_default(self, frame: Frame, node: ast.AST, applied: str) -> None:
        """Record an inner function that has an activation as the default of an argument."""
        self.refuse_call(
            frame, node, f"{applied!r} is the default of an argument of an inner function: call it directly"
        )

    def formula(self, node: ast.expr, frame: Frame) -> Value | None:
        """The value of an expression that computes an activation as a whole; None for another expression."""
        if not isinstance(node, _OPERATIONS) or id(node) not in self._nodes_with_triggers(frame.version.source):
            return None
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name not in RECTIFIERS and (name in CALL_NAMES or not hasattr(Tensor, name)):
                return None
        found = read_formula(node, frame, self.evaluate)
        if found is None:
            return None
        argument = self.evaluate(found.argument, frame)
        if argument.size or argument.is_known:
            return None
        text = ast.unparse(node)[:MAX_DETAIL]
        version, function = frame.version, found.recognition.function
        recipe = Recipe(version.locator, code_digest(version.function.__code__), found.expression, text)
        original = UserFunction(found.expression.build(version.source), text, recipe)
        applied = Applied(original, function, text, function, found.in_place, exact=False)
        return self.call_site(frame, node, found.argument, argument, applied)

    def _nodes_with_triggers(self, source: FunctionSource) -> frozenset[int]:
        key = id(source)
        if key not in self._triggers:
            self._triggers[key] = frozenset(
                id(node) for node in source.nodes if isinstance(node, _OPERATIONS) and contains_trigger(node)
            )
        return self._triggers[key]

    def call_site(
        self, frame: Frame, node: ast.expr, argument_node: ast.expr, argument: Value, applied: Applied
    ) -> Value:
        """The value of a call that applies an activation to `argument`; the call becomes a site."""
        if frame.shadowed:
            self.refuse_call(
                frame, node, f"{applied.detail} is applied where {frame.version.owner_name!r} is another object"
            )
            return ANYTHING
        version = frame.version
        edit = version.edits.setdefault(frame.index(node), CallEdit(loops=frame.loops))
        edit.argument = frame.index(argument_node)
        site = edit.sites.get(frame.turns)
        if site is None:
            site = FoundSite(
                owner=frame.owner,
                path=frame.path,
                base=applied.base,
                original=applied.original,
                function=applied.function,
                detail=applied.detail,
                kind="call",
                place=version.source.place(node),
                channels=argument.channels,
                parameter=argument.parameter,
                taken=frame.taken and self.called,
                note=applied.note,
                exact=applied.exact,
            )
            edit.sites[frame.turns] = site
            self.sites.append(site)
        site.taken = site.taken or (frame.taken and self.called)
        return self.applied_value(frame, site, argument_node, argument, applied.in_place)

    def applied_value(
        self, frame: Frame, site: FoundSite, argument_node: ast.expr | None, argument: Value, in_place: bool
    ) -> Value:
        """The value of the result of a site; what an in-place activation overwrites is taken into account."""
        consume(argument, "other")
        result = site_value(site, argument.channels or site.channels)
        observed = in_place and is_observed(frame, argument_node, argument)
        if in_place and argument_node is not None:
            self.overwritten(argument_node, argument, frame)
        if argument.storage is not None:
            argument.storage.read_by.append(site)
        if isinstance(argument_node, ast.Name):
            frame.arguments.setdefault(argument_node.id, []).append(site)
        if not observed:
            return result
        site.write_back = True
        keep(argument)
        if isinstance(argument_node, ast.Name) and argument_node.id in frame.names:
            frame.names[argument_node.id] = replace(frame.names[argument_node.id], results=result.results)
        return replace(result, storage=argument.storage)

    def activation_call(
        self,
        frame: Frame,
        node: ast.Call,
        name: str,
        subject: ast.expr | None = None,
        bound: Mapping[str, Any] | None = None,
    ) -> Value:
        """The value of a call of torch's activation `name`. `subject`: its tensor, for a method; `bound`: settings."""
        spelling = node.func.attr if isinstance(node.func, ast.Attribute) else name
        if any(isinstance(each, ast.Starred) for each in node.args) or any(each.arg is None for each in node.keywords):
            self.refuse_call(frame, node, f"{ast.unparse(node.func)} receives unpacked arguments: name them")
            return ANYTHING
        keywords = {str(each.arg): each.value for each in node.keywords}
        positional = list(node.args)
        argument_node = (
            subject if subject is not None else positional.pop(0) if positional else keywords.pop("input", None)
        )
        if argument_node is None:
            return ANYTHING
        argument = self.evaluate(argument_node, frame)
        values = [self.evaluate(each, frame) for each in positional]
        named = {key: self.evaluate(each, frame) for key, each in keywords.items()}
        if argument.size or isinstance(argument.known, int | float):
            return ANYTHING
        problem = _problem(name, ast.unparse(node.func), [*values, *named.values()], named)
        if problem:
            consume(argument, "other")
            self.refuse_call(frame, node, problem)
            return ANYTHING
        arguments = tuple(value.known for value in values)
        keyword_values = {**(bound or {}), **{key: value.known for key, value in named.items()}}
        in_place = torch_activations.call_works_in_place(name, spelling, arguments, keyword_values)
        settings = torch_activations.call_settings(name, arguments, keyword_values)
        detail = name + (f" {settings}" if settings else "")
        original: nn.Module = FunctionalActivation(name, settings)
        base = spelling if spelling.removesuffix("_") == name else name
        function, exact = name_of(original)
        live = [each for each in (*positional, *keywords.values()) if _is_live(each, frame)]
        if live and in_place:
            text = ast.unparse(node.func)
            self.refuse_call(frame, node, f"{text} works in place with a setting that is a name: write the number")
            return ANYTHING
        if live:  # a number with a name may change: the model's own call looks it up
            original, exact = self._own_call(frame, node, argument_node, live), False
        applied = Applied(original, function, detail, base, in_place, exact=exact)
        return self.call_site(frame, node, argument_node, argument, applied)

    def _own_call(self, frame: Frame, node: ast.Call, argument: ast.expr, settings: list[ast.expr]) -> nn.Module:
        """The author's own call as a function of its argument."""
        version, text = frame.version, ast.unparse(node)[:MAX_DETAIL]
        names = {each.id for setting in settings for each in ast.walk(setting) if isinstance(each, ast.Name)}
        local = {name: frame.names[name].known for name in sorted(names) if name in frame.names}
        expression = Expression(frame.index(node), (frame.index(argument),), tuple(local.items()))
        recipe = Recipe(version.locator, code_digest(version.function.__code__), expression, text)
        return UserFunction(expression.build(version.source), text, recipe)

    def tensor_method(self, frame: Frame, node: ast.Call, base: Value) -> Value:
        """The value of a method call on a tensor, or on an object of which nothing is known."""
        assert isinstance(node.func, ast.Attribute)
        name = node.func.attr
        activation = torch_activations.activation_of_method(name)
        if activation is not None:
            return self.activation_call(frame, node, activation, subject=node.func.value)
        values = [self.evaluate(each, frame) for each in (*node.args, *(each.value for each in node.keywords))]
        if name.endswith("_") and not name.endswith("__") and hasattr(Tensor, name):
            self.overwritten(node.func.value, base, frame)
        if base.items is not None and isinstance(node.func.value, ast.Name):
            # the method may change a list
            results = base.every_result().union(*(value.every_result() for value in values))
            frame.names[node.func.value.id] = Value(results=results)
            for value in values:
                keep(value)
            return ANYTHING
        return method_result(name, base, values, hasattr(Tensor, name))


def name_of(original: nn.Module) -> tuple[str, bool]:
    """The catalogue name of one of torch's activations with its settings, or "original"; and whether it is exact."""
    if isinstance(original, FunctionalActivation):
        name = torch_activations.catalogue_name_of_call(original.name, original.settings)
    else:
        name = torch_activations.catalogue_name_of_module(original)
    if name != ORIGINAL or isinstance(original, nn.PReLU | nn.RReLU):
        return name, True
    found = recognise(original)
    return (found.function, False) if found.kind == "activation" else (ORIGINAL, True)


def _is_live(node: ast.expr, frame: Frame) -> bool:
    """Whether a setting is a number of a global or of an outer function, which may change."""
    return any(isinstance(each, ast.Name) and each.id not in frame.names for each in ast.walk(node))


def _problem(name: str, text: str, values: list[Value], named: Mapping[str, Value]) -> str | None:
    """Why a call of an activation cannot be replaced; None if it can."""
    if name in REFUSED_CALLS:
        return REFUSED_CALLS[name]
    if "out" in named and named["out"].known is not None:
        return f"{text} writes to out=: use its result"
    if any(not value.is_known or value.setting for value in values):
        return f"{text} takes a setting made at run time: use a constant, or hold the activation as a module"
    return None


def is_observed(frame: Frame, argument_node: ast.expr | None, argument: Value) -> bool:
    """Whether anything may read the input of an in-place activation after it."""
    storage = argument.storage
    if storage is None or storage.shared or frame.nested or argument_node is None:
        return True
    if not isinstance(argument_node, ast.Name):
        return storage.bound
    ends = frame.rebound is None or argument_node.id in frame.rebound
    uses = [
        each
        for each in ast.walk(frame.statement or argument_node)
        if isinstance(each, ast.Name) and each.id == argument_node.id and isinstance(each.ctx, ast.Load)
    ]
    return not (ends and len(uses) == 1)


def overwrites(function: Callable[[Tensor], Tensor]) -> bool:
    """Whether a callable that was recognised as an activation overwrites its argument."""
    with torch.no_grad():
        before = torch.linspace(-3.0, 3.0, 8, dtype=torch.float64, device="cpu")
        after = before.clone()
        function(after)
    return not torch.equal(before, after)
