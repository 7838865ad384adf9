"""Reads calls: which function or module each of them runs."""

from __future__ import annotations

import ast
import functools
import operator
import re
import types
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from nasact.reserved_names import ORIGINAL
from nasact.surgery import torch_activations
from nasact.surgery.reading import resolve
from nasact.surgery.reading.call_sites import Applied
from nasact.surgery.reading.children import ChildReader, holder_of
from nasact.surgery.reading.evidence import activation_behind_attribute, activation_in, holds_activations
from nasact.surgery.reading.frame import Frame
from nasact.surgery.reading.signatures import is_function_apply, is_tensor_function
from nasact.surgery.reading.torch_calls import torch_result
from nasact.surgery.reading.truth import is_instance
from nasact.surgery.reading.values import ANYTHING, UNKNOWN, Slot, Value, applied_by_value, constant, tensor
from nasact.surgery.user_function import UserFunction

_PASS_THROUGH = (nn.Identity, nn.Flatten, nn.Unflatten)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


class ModelReader(ChildReader):
    """Reads calls of everything that a model may call."""

    def call(self, node: ast.Call, frame: Frame) -> Value:
        """The value of a call."""
        if isinstance(node.func, ast.Attribute):
            base = self.evaluate(node.func.value, frame)
            if not base.is_known:
                return self.tensor_method(frame, node, base)
            callee = self.attribute_of(base, node.func.attr, frame)
            if not callee.is_known and isinstance(base.known, nn.Module):
                applied_name = activation_behind_attribute(type(base.known), node.func.attr)
                if applied_name:
                    self.refuse_call(
                        frame,
                        node,
                        f"{ast.unparse(node.func)} is computed, and applies {applied_name!r}: make it a method",
                    )
        else:
            callee = self.evaluate(node.func, frame)
            if isinstance(node.func, ast.Subscript) and not callee.is_known:
                table = self.evaluate(node.func.value, frame)
                if holds_activations(table.known):
                    reason = f"{ast.unparse(node.func)} is looked up in a table in each pass: look it up in __init__"
                    self.refuse_call(frame, node, reason)
        if not callee.is_known and callee.applies:
            reason = f"{ast.unparse(node.func)[:60]} chooses {callee.applies!r} among several in each pass"
            self.refuse_call(frame, node, f"{reason}: call each of them in a branch of its own")
        held: Any = callee.known
        bound: dict[str, Any] = {}
        while isinstance(held, functools.partial) and not held.args:
            held, bound = held.func, {**held.keywords, **bound}
        activation = torch_activations.activation_of_function(held)
        if activation is not None:
            return self.activation_call(frame, node, activation, bound=bound)
        special = self._special_call(frame, node, held)
        if special is not None:
            return special
        if isinstance(held, types.MethodType) and isinstance(held.__self__, nn.Module) and held.__name__ == "forward":
            return self.call_child(frame, node, Value(known=held.__self__))
        if isinstance(held, nn.Module):
            return self.call_child(frame, node, callee)
        if isinstance(held, resolve.Method):
            if held.name == "forward" and not held.above and held.owner is not frame.owner:
                return self.call_child(frame, node, Value(known=held.owner, slot=_receiver_slot(node, self, frame)))
            return self.call_method(frame, node, held)
        if isinstance(held, types.FunctionType) and not resolve.is_torch(held):
            return self.call_helper(frame, node, held)
        if isinstance(held, type) or is_function_apply(held) or isinstance(held, torch.jit.ScriptFunction):
            return self._other_call(frame, node, held)
        if held is not UNKNOWN and (is_tensor_function(held) or isinstance(held, types.BuiltinFunctionType)):
            values = self.argument_values(frame, node)
            for _, value in values:
                self.check_handed_on(frame, node, value)
            flag = next(
                (value for name, value in values if name == "inplace"), values[3][1] if len(values) > 3 else None
            )
            is_dropout = "dropout" in getattr(held, "__name__", "")
            if is_dropout and flag is not None and flag.known is not False and node.args:
                self.overwritten(node.args[0], values[0][1], frame)
            self._refuse_by_name(frame, node, held, values)
            self._refuse_class_call(frame, node, held, values)
            return torch_result(getattr(held, "__name__", ""), [value for _, value in values])
        return self._other_call(frame, node, held)

    def _other_call(self, frame: Frame, node: ast.Call, held: Any) -> Value:
        values = self.argument_values(frame, node)
        together = self.container(held, values)
        if together is not None:
            return together
        self._refuse_by_name(frame, node, held, values)
        if isinstance(held, type) and issubclass(held, nn.Module):
            made_of = [applied_by_value(value) for _, value in values]
            applied_name = activation_in(getattr(held, "forward", None), held) or next(filter(None, made_of), None)
            if applied_name:
                reason = f"{ast.unparse(node.func)}, which applies {applied_name!r}, is made in a forward"
                self.refuse_call(frame, node, f"{reason}: make it in __init__")
        if isinstance(held, type) or held is UNKNOWN or not callable(held):
            return self.unread_call(frame, node, values)
        if len(node.args) == 1 and not node.keywords and not values[0][1].is_known:
            found = self.recognised(_key(held), held)
            text = ast.unparse(node.func)
            has_own = found.kind == "own gradient" and is_function_apply(held) and activation_in(held.__self__.forward)
            note = "it has a gradient of its own" if has_own else ""
            is_unnamed = found.kind == "activation" and found.function == ORIGINAL and not activation_in(held)
            if (found.kind == "activation" and not is_unnamed) or note:
                function = found.function or ORIGINAL
                base = function if function != ORIGINAL else _last_name(node.func)
                applied = Applied(UserFunction(held, text), function, text, base, exact=False, note=note)
                return self.call_site(frame, node, node.args[0], values[0][1], applied)
            if found.kind == "linear":
                return tensor(results=values[0][1].every_result(), channels=values[0][1].channels)
        applied_name = activation_in(held) if not is_function_apply(held) else None
        if applied_name:
            self.refuse_call(frame, node, f"{ast.unparse(node.func)} applies {applied_name!r} and cannot be read")
        return self.unread_call(frame, node, values)

    def _refuse_by_name(self, frame: Frame, node: ast.Call, held: Any, values: list[tuple[str | None, Value]]) -> None:
        """Record an activation that code looks up by its name, and one that writes to `out=`."""
        text = ast.unparse(node)[:60]
        if held in (operator.methodcaller, eval, exec) and any(_names_one(value.known) for _, value in values):
            self.refuse_call(frame, node, f"{text} looks an activation up by its name: call it directly")
        clamps = getattr(held, "__name__", "") in ("clamp", "clip", "clamp_min", "maximum", "max")
        if clamps and any(name == "out" for name, _ in values):
            self.refuse_call(frame, node, f"{text} writes to out=: use its result")

    def _refuse_class_call(
        self, frame: Frame, node: ast.Call, held: Any, values: list[tuple[str | None, Value]]
    ) -> None:
        """Record `nn.ReLU.forward(self.act, x)`: it reads the settings of the activation."""
        for _, value in values:
            if isinstance(value.known, nn.Module) and getattr(held, "__name__", "") in ("forward", "__call__"):
                self.inspected.add(id(value.known))
                self.refuse_call(frame, node, f"{ast.unparse(node.func)} is called with the module: call the module")

    def _special_call(self, frame: Frame, node: ast.Call, held: Any) -> Value | None:
        """The value of a call of a builtin or class whose meaning is known; None for another call."""
        arguments = node.args
        if held is super:
            return self._super(frame, node)
        if held is getattr and len(arguments) >= 2:
            base, name = (self.evaluate(each, frame) for each in arguments[:2])
            if not base.is_known and name.known in torch_activations.CALL_NAMES:
                self.refuse_call(
                    frame, node, f"{ast.unparse(node)} looks {name.known!r} up by its name: call it directly"
                )
            self.dynamic = self.dynamic or (not isinstance(name.known, str) and isinstance(base.known, nn.Module))
            return (
                self.attribute_of(base, name.known, frame)
                if base.is_known and isinstance(name.known, str)
                else ANYTHING
            )
        if held is isinstance and len(arguments) == 2:
            values = [self.evaluate(each, frame) for each in arguments]
            kinds = values[1].known
            if values[1].items is not None:
                kinds = tuple(item.known for item in values[1].items)
            self._refuse_inspection(frame, node, values[0], kinds)
            known = is_instance(values[0], kinds)
            return ANYTHING if known is None else constant(known)
        if held is len and len(arguments) == 1:
            inner = self.evaluate(arguments[0], frame)
            sized = isinstance(inner.known, nn.Sequential | nn.ModuleList | nn.ModuleDict | tuple | list | str)
            return constant(len(inner.known)) if sized else Value(size=True)
        if held is hasattr and len(arguments) == 2:
            base, name = (self.evaluate(each, frame) for each in arguments)
            if isinstance(base.known, nn.Module) and isinstance(name.known, str):
                found = resolve.module_attribute(base.known, name.known)
                return constant(True) if found is not ANYTHING else ANYTHING
            return ANYTHING
        if torch_activations.is_activation_class(held):
            return self._made_in_forward(frame, node, held)
        if isinstance(held, type) and issubclass(held, nn.Module) and not resolve.is_torch(held):
            is_plain = resolve.is_torch(holder_of(held, "__init__")) and holder_of(held, "__new__") is object
            if is_plain and not arguments and not node.keywords:
                return Value(known=held())  # torch's own constructor: none of the user's code runs
        return None

    def _refuse_inspection(self, frame: Frame, node: ast.Call, value: Value, kinds: Any) -> None:
        """Record a test of the class of an activation: the module of a site has another class."""
        every = kinds if isinstance(kinds, tuple) else (kinds,)
        asks = any(isinstance(kind, type) and torch_activations.is_activation_class(kind) for kind in every)
        if asks and isinstance(value.known, nn.Module) and self.applied_by(value.known) is not None:
            self.inspected.add(id(value.known))
            self.refuse_call(
                frame, node, f"{ast.unparse(node)} asks for the class of an activation, which a site changes"
            )

    def attribute_of(self, base: Value, name: str, frame: Frame) -> Value:
        """The value of an attribute of a value; a setting of an activation that code reads is recorded."""
        value = super().attribute_of(base, name, frame)
        is_state = (value.is_known and not isinstance(value.known, resolve.Method)) or value.is_weight
        if base.slot is not None and is_state and name != "__class__" and torch_activations.is_activation(base.known):
            self.inspected.add(id(base.known))
            reason = f"{base.slot.name}.{name} is a setting of an activation, which a site has not"
            self.refuse_call(frame, frame.statement or frame.version.source.node, reason)
        return value

    def _super(self, frame: Frame, node: ast.Call) -> Value:
        function = frame.version.function
        cls = resolve.name(function, "__class__").known if "__class__" in function.__code__.co_freevars else UNKNOWN
        if node.args:
            cls = self.evaluate(node.args[0], frame).known
        return Value(known=resolve.Super(frame.owner, cls)) if isinstance(cls, type) else ANYTHING

    def _made_in_forward(self, frame: Frame, node: ast.Call, kind: type[nn.Module]) -> Value:
        """The value of `nn.ReLU()` in a forward: a module that no attribute holds."""
        values = self.argument_values(frame, node)
        arguments = [value.known for name, value in values if name is None]
        keywords = {name: value.known for name, value in values if name}
        if any(not value.is_known or value.setting for _, value in values):
            self.refuse_call(
                frame, node, f"{ast.unparse(node.func)} is made with a setting of the run: make it in __init__"
            )
            return ANYTHING
        if issubclass(kind, nn.PReLU):
            self.refuse_call(
                frame, node, "nn.PReLU is made in a forward, so that its slopes are never trained: make it in __init__"
            )
            return ANYTHING
        return Value(known=kind(*arguments, **keywords))

    def property_value(self, held: resolve.Property, frame: Frame) -> Value:
        """The value of a property: read, never run."""
        before = len(self.sites)
        version = self.version(
            held.owner, self.path_of(held.owner, frame), held.function, held.name, None, as_method=True
        )
        if version is None:
            return ANYTHING
        value = self.run(version, {})
        self.versions[id(held.owner)].remove(version)
        for site in self.sites[before:]:
            if site.parameter:
                continue
            self.refuse(site.path, f"{held.kind} {held.name!r} applies {site.detail}: make it a method")
        del self.sites[before:]
        return replace(value, results=frozenset())


def _names_one(text: Any) -> bool:
    """Whether a value is a text that names an activation."""
    return isinstance(text, str) and any(word in torch_activations.CALL_NAMES for word in re.findall(r"\w+", text))


def _receiver_slot(node: ast.Call, reader: ModelReader, frame: Frame) -> Slot | None:
    assert isinstance(node.func, ast.Attribute)
    return reader.evaluate(node.func.value, frame).slot


def _key(held: Any) -> Any:
    try:
        hash(held)
    except TypeError:
        return id(held)
    return held


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return _last_name(node.value) if node.attr == "apply" else node.attr
    return node.id if isinstance(node, ast.Name) else "function"
