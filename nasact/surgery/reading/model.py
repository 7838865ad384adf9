"""Reads a whole model: calls of children, Sequential chains, and the modules that no code calls in a way that is read."""

from __future__ import annotations

import ast
import functools
import operator
import re
import types
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

from nasact.reserved_names import ORIGINAL
from nasact.surgery import torch_activations
from nasact.surgery.channels import channels_after
from nasact.surgery.reading import resolve
from nasact.surgery.reading.call_sites import Applied, name_of, overwrites
from nasact.surgery.reading.evidence import activation_behind_attribute, activation_in
from nasact.surgery.reading.expressions import Frame, consume, keep, site_value
from nasact.surgery.reading.function_calls import FunctionCallReader, is_function_apply, is_tensor_function
from nasact.surgery.reading.torch_calls import torch_result
from nasact.surgery.reading.truth import is_instance
from nasact.surgery.reading.values import ANYTHING, UNKNOWN, FoundSite, Slot, Storage, Value, constant, tensor
from nasact.surgery.reading.versions import CallEdit
from nasact.surgery.torch_activations import FunctionalActivation
from nasact.surgery.user_function import UserFunction

_PASS_THROUGH = (nn.Identity, nn.Flatten, nn.Unflatten)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


def join_path(path: str, name: str) -> str:
    """The path of a child."""
    return f"{path}.{name}" if path and name else path or name


class ModelReader(FunctionCallReader):
    """Reads a model from its root.

    By id of a module: `paths`; `returned`, the values of the forwards; `chained`, the Sequentials that are called as a
    whole; `parts`, the modules inside of a module that is one activation. `slots`: the sites of children.
    `dynamic`: code looks a child up by a name that it computes. `called`: False while modules are read that no code
    calls.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.paths: dict[int, list[str]] = {}
        for path, module in model.named_modules(remove_duplicate=False):
            self.paths.setdefault(id(module), []).append(path)
        self.returned: dict[int, Value] = {}
        self.slots: dict[tuple[int, str], FoundSite] = {}
        self.chained: set[int] = set()
        self.parts: set[int] = set()
        self.dynamic = False
        self.called = True

    def path_of(self, module: nn.Module, frame: Frame | None = None) -> str:
        """The path of a module: below that of the reading module, if there is a choice."""
        paths = self.paths.get(id(module), [""])
        below = [path for path in paths if frame is not None and path.startswith(frame.path)]
        return (below or paths)[0]

    # calls

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
                    self.refuse_call(frame, node, f"{ast.unparse(node.func)} is computed, and applies {applied_name!r}: make it a method")
        else:
            callee = self.evaluate(node.func, frame)
        held, bound = callee.known, {}
        while isinstance(held, functools.partial) and not held.args:
            held, bound = held.func, {**held.keywords, **bound}
        activation = torch_activations.activation_of_function(held)
        if activation is not None:
            return self.activation_call(frame, node, activation, bound=bound)
        special = self._special_call(frame, node, held)
        if special is not None:
            return special
        if isinstance(held, nn.Module):
            return self.call_child(frame, node, callee)
        if isinstance(held, resolve.Method):
            if held.name == "forward" and not held.above and held.owner is not frame.owner:
                return self.call_child(frame, node, Value(known=held.owner, slot=_receiver_slot(node, self, frame)))
            return self.call_method(frame, node, held)
        if isinstance(held, types.FunctionType) and not resolve.is_torch(held):
            return self.call_helper(frame, node, held)
        if held is not UNKNOWN and (is_tensor_function(held) or isinstance(held, types.BuiltinFunctionType)):
            values = self.argument_values(frame, node)
            for _, value in values:
                self.check_handed_on(frame, node, value)
            self._refuse_by_name(frame, node, held, values)
            return torch_result(getattr(held, "__name__", ""), [value for _, value in values])
        return self._other_call(frame, node, held)

    def _other_call(self, frame: Frame, node: ast.Call, held: Any) -> Value:
        values = self.argument_values(frame, node)
        self._refuse_by_name(frame, node, held, values)
        if isinstance(held, type) or held is UNKNOWN or not callable(held):
            return self.unread_call(frame, node, values)
        if len(node.args) == 1 and not node.keywords and not values[0][1].is_known:
            found = self.recognised(_key(held), held)
            text = ast.unparse(node.func)
            note = "it has a gradient of its own" if found.kind == "own gradient" and is_function_apply(held) else ""
            if found.kind == "activation" or note:
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

    def _special_call(self, frame: Frame, node: ast.Call, held: Any) -> Value | None:
        """The value of a call of a builtin or class whose meaning is known; None for another call."""
        arguments = node.args
        if held is super:
            return self._super(frame, node)
        if held is getattr and len(arguments) >= 2:
            base, name = (self.evaluate(each, frame) for each in arguments[:2])
            if not base.is_known and name.known in torch_activations.CALL_NAMES:
                self.refuse_call(frame, node, f"{ast.unparse(node)} looks {name.known!r} up by its name: call it directly")
            self.dynamic = self.dynamic or (not isinstance(name.known, str) and isinstance(base.known, nn.Module))
            found = self.attribute_of(base, name.known, frame) if base.is_known and isinstance(name.known, str) else ANYTHING
            return found
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
        return None

    def _refuse_inspection(self, frame: Frame, node: ast.Call, value: Value, kinds: Any) -> None:
        """Record a test of the class of an activation: the module of a site has another class."""
        every = kinds if isinstance(kinds, tuple) else (kinds,)
        asks = any(isinstance(kind, type) and torch_activations.is_activation_class(kind) for kind in every)
        if asks and isinstance(value.known, nn.Module) and self.applied_by(value.known) is not None:
            self.refuse_call(frame, node, f"{ast.unparse(node)} asks for the class of an activation, which a site changes")

    def attribute_of(self, base: Value, name: str, frame: Frame) -> Value:
        """The value of an attribute of a value; a setting of an activation that code reads is recorded."""
        value = super().attribute_of(base, name, frame)
        is_state = value.is_known and not isinstance(value.known, resolve.Method) or value.is_weight
        if base.slot is not None and is_state and name != "__class__" and torch_activations.is_activation(base.known):
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
            self.refuse_call(frame, node, f"{ast.unparse(node.func)} is made with a setting of the run: make it in __init__")
            return ANYTHING
        if issubclass(kind, nn.PReLU):
            self.refuse_call(frame, node, "nn.PReLU is made in a forward, so that its slopes are never trained: make it in __init__")
            return ANYTHING
        return Value(known=kind(*arguments, **keywords))

    def library_method(
        self, frame: Frame, node: ast.Call, method: resolve.Method, values: list[tuple[str | None, Value]]
    ) -> Value:
        """The value of a call of a method that torch defines."""
        if method.name in ("forward", "__call__") and method.owner is frame.owner and isinstance(method.owner, nn.Sequential):
            self.chained.add(id(method.owner))
            argument = values[0][1] if values else ANYTHING
            return self.chain(self.members_of(method.owner, None), argument, frame)
        return self.unread_call(frame, node, values)

    # children

    def call_child(self, frame: Frame, node: ast.Call, callee: Value) -> Value:
        """The value of a call of a module."""
        values = self.argument_values(frame, node)
        module = callee.known
        argument = values[0][1] if values else ANYTHING
        applied = self.applied_by(module) if len(values) == 1 else None
        if applied is not None:
            return self._call_activation(frame, node, callee, argument, applied)
        for _, value in values:
            self.check_handed_on(frame, node, value)
        if callee.slot is None and id(module) not in self.paths:
            return self.unread_call(frame, node, values)
        return self.pass_through(frame, module, argument, [value for _, value in values])

    def _call_activation(self, frame: Frame, node: ast.Call, callee: Value, argument: Value, applied: Applied) -> Value:
        slot, argument_node = callee.slot, (*node.args, *(each.value for each in node.keywords))[0]
        if isinstance(argument_node, ast.Starred) or any(each.arg is None for each in node.keywords):
            self.refuse_call(frame, node, f"{ast.unparse(node.func)} receives unpacked arguments: name them")
            return ANYTHING
        if slot is None and id(callee.known) in self.paths:
            # it was reached in a way that does not show which attribute holds it
            self.refuse_call(frame, node, f"{ast.unparse(node.func)} applies {applied.detail} that several names hold")
            return ANYTHING
        if slot is None:
            made = replace(applied, base=type(callee.known).__name__.lower())
            return self.call_site(frame, node, argument_node, argument, made)
        site = self.slots.get((id(slot.parent), slot.key))
        here = (id(frame.version), frame.index(node), frame.turns)
        if site is None or site.first_call in (None, here):
            site = self.slot_site(slot, frame.path, applied, argument, taken=frame.taken)
            site.first_call = here
            if (frame.loops or node.keywords) and slot.parent is frame.owner:
                edit = frame.version.edits.setdefault(frame.index(node), CallEdit(loops=frame.loops))
                edit.argument = frame.index(argument_node)
                edit.sites[frame.turns] = site
                edit.needed = bool(node.keywords)
            elif node.keywords:
                self.refuse_call(frame, node, f"{ast.unparse(node.func)} names its argument: pass it without a name")
            return self.applied_value(frame, site, argument_node, argument, applied.in_place)
        again = replace(applied, base=slot.name.replace(".", "_"))
        value = self.call_site(frame, node, argument_node, argument, again)
        for each in value.results:
            each.shares, each.kind = site, "module"
        return value

    def slot_site(self, slot: Slot, path: str, applied: Applied, argument: Value, *, taken: bool = True) -> FoundSite:
        """The site of a child that a slot holds."""
        key = (id(slot.parent), slot.key)
        if key not in self.slots:
            parent_name = slot.name.rpartition(".")[0]
            site = FoundSite(
                owner=slot.parent,
                path=join_path(path, parent_name),
                base=slot.key,
                key=slot.key,
                original=applied.original,
                function=applied.function,
                detail=applied.detail,
                kind="module",
                place="",
                channels=argument.channels,
                parameter=argument.parameter,
                taken=taken and self.called,
                note=applied.note,
                exact=applied.exact,
            )
            self.slots[key] = site
            self.sites.append(site)
        site = self.slots[key]
        site.taken = site.taken or taken
        return site

    def applied_by(self, module: nn.Module) -> Applied | None:
        """The activation that a module is as a whole; None for another module."""
        if torch_activations.is_activation(module):
            function, exact = name_of(module)
            in_place = bool(getattr(module, "inplace", False))
            return Applied(torch_activations.out_of_place(module), function, repr(module), "", in_place, exact=exact)
        kind = type(module)
        if resolve.is_torch(kind) or isinstance(module, torch.jit.ScriptModule | FunctionalActivation | UserFunction):
            return None
        if any(True for _ in module.parameters()) or any(True for _ in module.buffers()):
            return None
        if not _takes_one_tensor(module) or len(list(module.modules())) > 8:
            return None
        found = self.recognised(("module", id(module)), module)
        if found.kind != "activation" or (found.function == ORIGINAL and not _names_activation(module)):
            return None
        self.parts.update(id(part) for part in module.modules() if part is not module)
        return Applied(module, found.function, repr(module), "", overwrites(module), exact=False)

    def pass_through(self, frame: Frame | None, module: nn.Module, argument: Value, values: Sequence[Value]) -> Value:
        """The value of the call of a module that is no activation."""
        if isinstance(module, _PASS_THROUGH):
            return replace(argument.reshaped(), channels=argument.channels if isinstance(module, nn.Identity) else None)
        if isinstance(module, _DROPOUTS):
            # in eval mode a dropout returns its argument
            return replace(argument.reshaped(), channels=argument.channels)
        returned = self.read(module, self.path_of(module, frame))
        fixed = resolve.is_torch(type(module))
        for value in values:
            consume(value, "other")
            if not fixed:
                keep(value)
        if fixed and not isinstance(module, nn.Sequential):
            has_hooks = any(vars(module)[name] for name in ("_forward_hooks", "_forward_pre_hooks"))
            channels = channels_after(module, argument.channels)
            return Value(channels=channels) if has_hooks else tensor(channels=channels)
        if returned.items is not None:
            return returned
        made = returned.storage
        storage = None if made is None or made.shared else Storage(made_by=made.made_by)
        return replace(returned, known=UNKNOWN, slot=None, storage=storage)

    def chain(self, members: Iterable[Value], argument: Value, frame: Frame | None) -> Value:
        """The value of the calls of modules one after another, each with the result of the one before."""
        value = argument
        for member in members:
            module, slot = member.known, member.slot
            applied = self.applied_by(module)
            if applied is None or slot is None:
                value = self.pass_through(frame, module, value, (value,))
                continue
            path = frame.path if frame is not None else ""
            known = (id(slot.parent), slot.key) in self.slots
            site = self.slot_site(slot, path, applied, value)
            site.first_call = site.first_call or (id(slot.parent), -1, ())
            consume(value, "other")
            result = site_value(site, value.channels)
            observed = value.storage is None or value.storage.shared or value.storage.bound
            if applied.in_place and (observed or known):
                site.write_back = True
                keep(value)
                result = replace(result, storage=None)
            value = result
        return value

    def members_of(self, module: nn.Sequential, slot: Slot | None) -> list[Value]:
        """The children of a Sequential with the slots that hold them."""
        return [resolve.module_attribute(module, key, slot) for key in vars(module)["_modules"]]

    def read(self, module: nn.Module, path: str) -> Value:
        """Read the forward of a module once; return what is known of its value."""
        if id(module) not in self.returned:
            self.returned[id(module)] = ANYTHING
            self.returned[id(module)] = self._read(module, path)
        return self.returned[id(module)]

    def _read(self, module: nn.Module, path: str) -> Value:
        if isinstance(module, torch.jit.ScriptModule):
            self.refuse(path, "it is compiled (TorchScript), so that nothing in it can be replaced")
        elif isinstance(module, nn.RNNBase | nn.RNNCellBase):
            self.refuse(path, f"nn.{type(module).__name__} computes its gates inside one fused kernel")
        elif isinstance(module, fx.GraphModule):
            return self.read_graph(module, path)
        elif "forward" in vars(module) or not _is_of_torch(type(module)):
            return self._read_forward(module, path)
        elif isinstance(module, nn.Sequential):
            return self.chain_at(module, path)
        else:
            self.read_library_module(module, path)
        return ANYTHING

    def read_library_module(self, module: nn.Module, path: str) -> None:
        """Read a module of torch: its children, and attributes that hold activations."""
        raise NotImplementedError

    def chain_at(self, module: nn.Sequential, path: str) -> Value:
        """The value of a Sequential that is called as a whole."""
        self.chained.add(id(module))
        members = [
            replace(member, slot=Slot(module, member.slot.key, join_path(path, member.slot.key)))
            for member in self.members_of(module, None)
            if member.slot is not None
        ]
        return self.chain(members, ANYTHING, None)

    def _read_forward(self, module: nn.Module, path: str) -> Value:
        own = vars(module).get("forward")
        if own is not None and not (isinstance(own, types.MethodType) and own.__self__ is module):
            applied = activation_in(own, type(module)) or activation_in(type(module).forward, type(module))
            if applied:
                reason = "its forward was put on the instance as a function that is no method of it: bind it with types.MethodType"
                self.refuse(path, f"{reason} (it uses {applied!r})")
            return ANYTHING
        held, cls = (own.__func__, None) if own is not None else (type(module).forward, _holder(type(module), "forward"))
        version = self.own_method(module, path, "forward", held, cls)
        holder = _holder(type(module), "__call__")
        if holder is not None and not resolve.is_torch(holder) and activation_in(vars(holder)["__call__"], type(module)):
            called = self.own_method(module, path, "__call__", vars(holder)["__call__"], holder)
            if called is not None and called.sites():
                return called.returned or ANYTHING
        return version.returned or ANYTHING if version is not None else ANYTHING

    def read_graph(self, module: fx.GraphModule, path: str) -> Value:
        """Read a module whose forward is a torch.fx graph."""
        raise NotImplementedError

    def property_value(self, held: resolve.Property, frame: Frame) -> Value:
        """The value of a property: read, never run."""
        before = len(self.sites)
        version = self.version(held.owner, self.path_of(held.owner, frame), held.function, held.name, None, as_method=True)
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


def _is_of_torch(kind: type[nn.Module]) -> bool:
    """Whether torch defines what a call of the module runs."""
    return all(resolve.is_torch(_holder(kind, name)) for name in ("forward", "__call__"))


def _names_one(text: Any) -> bool:
    """Whether a value is a text that names an activation."""
    return isinstance(text, str) and any(word in torch_activations.CALL_NAMES for word in re.findall(r"\w+", text))


def _holder(kind: type, name: str) -> type | None:
    return next((cls for cls in kind.__mro__ if name in vars(cls)), None)


def _receiver_slot(node: ast.Call, reader: ModelReader, frame: Frame) -> Slot | None:
    assert isinstance(node.func, ast.Attribute)
    return reader.evaluate(node.func.value, frame).slot


def _takes_one_tensor(module: nn.Module) -> bool:
    function = getattr(vars(module).get("forward", type(module).forward), "__wrapped__", type(module).forward)
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    required = code.co_argcount - len(function.__defaults__ or ())
    return bool(required == 2 and code.co_argcount >= 2 and code.co_kwonlyargcount == 0)


def _names_activation(module: nn.Module) -> bool:
    return any(
        activation_in(type(each).forward, type(each)) or any(activation_in(value) for value in vars(each).values() if callable(value))
        for each in module.modules()
    )


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
