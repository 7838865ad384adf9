"""Reads a module that torch.fx has made: its graph is its code, so that the graph itself is edited."""

from __future__ import annotations

import ast
import operator
from dataclasses import replace
from typing import Any

from torch import fx, nn

from nasact.reserved_names import ORIGINAL
from nasact.surgery import torch_activations
from nasact.surgery.elementwise import recognise
from nasact.surgery.reading import resolve
from nasact.surgery.reading.call_sites import Applied, name_of
from nasact.surgery.reading.formulas import equals
from nasact.surgery.reading.frame import consume
from nasact.surgery.reading.model import ModelReader
from nasact.surgery.reading.torch_calls import method_result, torch_result
from nasact.surgery.reading.values import ANYTHING, FoundSite, Slot, Value, constant, tensor
from nasact.surgery.torch_activations import FunctionalActivation
from nasact.surgery.user_function import UserFunction

_OPERATORS: dict[str, ast.operator] = {
    "mul": ast.Mult(), "imul": ast.Mult(), "add": ast.Add(), "iadd": ast.Add(), "sub": ast.Sub(), "isub": ast.Sub(),
    "truediv": ast.Div(), "matmul": ast.MatMult(),
}  # fmt: skip


def read_graph(reader: ModelReader, module: fx.GraphModule, path: str) -> Value:
    """Read the graph of a module; the sites are its nodes. Returns the value of its output."""
    values: dict[fx.Node, Value] = {}
    result = ANYTHING
    for node in module.graph.nodes:
        if node.op == "output":
            result = _value(node.args[0], values)
        elif node.op == "get_attr":
            values[node] = Value(parameter=True)
        elif node.op == "call_module":
            values[node] = _call_module(reader, module, path, node, values)
        elif node.op in ("call_function", "call_method"):
            values[node] = _call(reader, module, path, node, values)
        else:
            values[node] = ANYTHING
    return result


def _value(argument: Any, values: dict[fx.Node, Value]) -> Value:
    if isinstance(argument, fx.Node):
        return values[argument]
    if isinstance(argument, tuple | list):
        return Value(items=tuple(_value(each, values) for each in argument))
    if isinstance(argument, dict):
        return Value(results=Value(items=tuple(_value(each, values) for each in argument.values())).every_result())
    return constant(argument)


def _call(reader: ModelReader, module: fx.GraphModule, path: str, node: fx.Node, values: dict[fx.Node, Value]) -> Value:
    arguments = [_value(each, values) for each in (*node.args, *node.kwargs.values())]
    if node.op == "call_method":
        name, activation = str(node.target), torch_activations.activation_of_method(str(node.target))
    else:
        name, activation = getattr(node.target, "__name__", ""), torch_activations.activation_of_function(node.target)
    if activation is None:
        clamped = _clamp_site(reader, module, path, node, name, arguments)
        if clamped is not None:
            return clamped
        if node.op == "call_method":
            return method_result(name, arguments[0], arguments[1:], is_tensor_method=True)
        if name in _OPERATORS and len(arguments) == 2:
            return reader.arithmetic(arguments[0], arguments[1], _OPERATORS[name])
        if name == "getitem":
            return resolve.item(arguments[0], arguments[1]) or arguments[0].reshaped()
        return torch_result(name, arguments)
    if activation in torch_activations.REFUSED_CALLS:
        reader.refuse(path, torch_activations.REFUSED_CALLS[activation])
        return ANYTHING
    if "out" in node.kwargs or any(isinstance(each, fx.Node) for each in (*node.args[1:], *node.kwargs.values())):
        reader.refuse(path, f"{node.name}: {activation} takes a setting made at run time")
        return ANYTHING
    settings = torch_activations.call_settings(activation, tuple(node.args[1:]), node.kwargs)
    original = FunctionalActivation(activation, settings)
    function, exact = name_of(original)
    in_place = torch_activations.call_works_in_place(activation, name, tuple(node.args[1:]), node.kwargs)
    applied = Applied(
        original, function, activation + (f" {settings}" if settings else ""), node.name, in_place, exact=exact
    )
    return _node_site(reader, module, path, node, arguments[0], applied)


def _clamp_site(
    reader: ModelReader, module: fx.GraphModule, path: str, node: fx.Node, name: str, arguments: list[Value]
) -> Value | None:
    """The value of a clamp that is an activation, such as `clamp(min=0)`; None for another call."""
    rest = (*node.args[1:], *node.kwargs.values())
    if name not in ("clamp", "clip", "clamp_min") or not node.args or any(isinstance(each, fx.Node) for each in rest):
        return None
    function = operator.methodcaller(name, *node.args[1:], **node.kwargs)
    found = recognise(function)
    if found.kind != "activation" or found.function == ORIGINAL or not equals(function, found.function):
        return None
    applied = Applied(UserFunction(function, name), found.function, name, found.function, exact=False)
    return _node_site(reader, module, path, node, arguments[0], applied)


def _call_module(
    reader: ModelReader, module: fx.GraphModule, path: str, node: fx.Node, values: dict[fx.Node, Value]
) -> Value:
    target = str(node.target)
    child = module.get_submodule(target)
    arguments = [_value(each, values) for each in (*node.args, *node.kwargs.values())]
    argument = arguments[0] if arguments else ANYTHING
    applied = reader.applied_by(child) if len(arguments) == 1 else None
    if applied is None:
        return reader.pass_through(None, child, argument, arguments)
    parent_path, _, key = target.rpartition(".")
    slot = Slot(module.get_submodule(parent_path), key, target)
    if (id(slot.parent), key) in reader.slots:
        again = replace(applied, base=target.replace(".", "_"))
        value = _node_site(reader, module, path, node, argument, again)
        for each in value.results:
            each.shares, each.kind = reader.slots[id(slot.parent), key], "module"
        return value
    site = reader.slot_site(slot, path, applied, argument)
    return _applied(node, site, argument, applied.in_place)


def _node_site(
    reader: ModelReader, module: nn.Module, path: str, node: fx.Node, argument: Value, applied: Applied
) -> Value:
    site = FoundSite(
        owner=module, path=path, base=applied.base, original=applied.original, function=applied.function,
        detail=applied.detail, kind="call", place="", channels=argument.channels, parameter=argument.parameter,
        exact=applied.exact, node=node,
    )  # fmt: skip
    reader.sites.append(site)
    return _applied(node, site, argument, applied.in_place)


def _applied(node: fx.Node, site: FoundSite, argument: Value, in_place: bool) -> Value:
    consume(argument, "other")
    result = tensor(results=frozenset({site}), channels=argument.channels, parameter=argument.parameter)
    source = node.args[0] if node.args else node.kwargs.get("input")
    order = {each: index for index, each in enumerate(node.graph.nodes)}
    read_later = isinstance(source, fx.Node) and any(order[user] > order[node] for user in source.users)
    storage = argument.storage
    if in_place and (read_later or storage is None or storage.shared):
        site.write_back = True
        return replace(result, storage=None)
    return result
