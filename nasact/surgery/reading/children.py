"""Reads calls of children, Sequential chains, and the forwards of modules, each once."""

from __future__ import annotations

import ast
import dis
import inspect
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
from nasact.surgery.reading.evidence import activation_in
from nasact.surgery.reading.expressions import site_value
from nasact.surgery.reading.frame import Frame, consume, keep
from nasact.surgery.reading.function_calls import FunctionCallReader
from nasact.surgery.reading.values import (
    ANYTHING,
    UNKNOWN,
    FoundSite,
    Slot,
    Storage,
    Value,
    constant,
    overwrite,
    tensor,
)
from nasact.surgery.reading.versions import CallEdit, FunctionVersion
from nasact.surgery.torch_activations import FunctionalActivation
from nasact.surgery.user_function import UserFunction
from nasact.surgery.write_back import Copied, WriteBack

_PASS_THROUGH = (nn.Identity, nn.Flatten, nn.Unflatten)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


_RETURN_THEMSELVES = frozenset({"to", "cpu", "cuda", "float", "double", "half", "bfloat16", "type", "eval", "train"})
"""Methods of a module that return the module."""


def join_path(path: str, name: str) -> str:
    """The path of a child."""
    return f"{path}.{name}" if path and name else path or name


class ChildReader(FunctionCallReader):
    """Reads modules and the calls of their children.

    By id of a module: `paths`; `returned`, the values of the forwards; `chained`, the Sequentials that are called as a
    whole; `parts`, the modules inside of a module that is one activation. `slots`: the sites of children.
    `inspected`: the activations whose class or settings code reads, which are left alone. `dynamic`: code looks a child
    up by a name that it computes. `called`: False while modules are read that no code calls.
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
        self.inspected: set[int] = set()
        self.called = True

    def path_of(self, module: nn.Module, frame: Frame | None = None) -> str:
        """The path of a module: below that of the reading module, if there is a choice."""
        paths = self.paths.get(id(module), [""])
        below = [path for path in paths if frame is not None and path.startswith(frame.path)]
        return (below or paths)[0]

    def library_method(
        self, frame: Frame, node: ast.Call, method: resolve.Method, values: list[tuple[str | None, Value]]
    ) -> Value:
        """The value of a call of a method that torch defines."""
        if (
            method.name in ("forward", "__call__")
            and method.owner is frame.owner
            and isinstance(method.owner, nn.Sequential)
        ):
            self.chained.add(id(method.owner))
            argument = values[0][1] if values else ANYTHING
            return self.chain(self.members_of(method.owner, None), argument, frame)
        if method.owner is not frame.owner and method.name in _RETURN_THEMSELVES:
            return constant(method.owner)
        return self.unread_call(frame, node, values)

    def call_child(self, frame: Frame, node: ast.Call, callee: Value) -> Value:
        """The value of a call of a module."""
        values = self.argument_values(frame, node)
        module = callee.known
        argument = values[0][1] if values else ANYTHING
        applied = self.applied_by(module) if len(values) == 1 else None
        if applied is not None:
            return self._call_activation(frame, node, callee, argument, applied)
        if len(values) > 1 and self.applied_by(module) is not None:
            # with one argument it is an activation as a whole, and here more than that
            self.inspected.add(id(module))
            reason = "is called with further arguments, although it is an activation with one: use a module for each"
            self.refuse_call(frame, node, f"{ast.unparse(node.func)} {reason}")
            return self.unread_call(frame, node, values)
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
            hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
            # a hook sees the input, also after it was overwritten
            site.write_back = applied.in_place and any(vars(applied.original).get(name) for name in hooks)
            self.slots[key] = site
            self.sites.append(site)
        site = self.slots[key]
        site.taken = site.taken or (taken and self.called)
        return site

    def applied_by(self, module: nn.Module) -> Applied | None:
        """The activation that a module is as a whole; None for another module."""
        if torch_activations.is_activation(module):
            function, exact = name_of(module)
            in_place = bool(getattr(module, "inplace", False))
            return Applied(torch_activations.out_of_place(module), function, repr(module), "", in_place, exact=exact)
        kind = type(module)
        if isinstance(module, WriteBack | Copied):
            inner = self.applied_by(module.function)
            return None if inner is None else replace(inner, in_place=isinstance(module, WriteBack))
        if kind.__module__.startswith("nasact.mixture."):  # of a derived network
            self.parts.update(id(part) for part in module.modules() if part is not module)
            return Applied(module, ORIGINAL, repr(module), "")
        if isinstance(module, FunctionalActivation):
            function, exact = name_of(module)
            return Applied(module, function, repr(module), "", exact=exact)
        if isinstance(module, UserFunction):
            found = self.recognised(("module", id(module)), module)
            return Applied(module, found.function or ORIGINAL, repr(module), "", exact=False)
        if resolve.is_torch(kind) or isinstance(module, torch.jit.ScriptModule):
            return None
        if any(True for _ in module.parameters()) or any(True for _ in module.buffers()):
            return None
        if not _takes_one_tensor(module) or len(list(module.modules())) > 8:
            return None
        if len(list(module.children())) > 1 and _branches(type(module).forward):
            return None  # it chooses between its children
        found = self.recognised(("module", id(module)), module)
        if found.kind != "activation":
            return None
        # of an unnamed function such as x + act(x), the activation in it is the site
        if found.function == ORIGINAL and (any(True for _ in module.children()) or not _names_activation(module)):
            return None
        self.parts.update(id(part) for part in module.modules() if part is not module)
        return Applied(module, found.function, repr(module), "", overwrites(module), exact=False)

    def pass_through(self, frame: Frame | None, module: nn.Module, argument: Value, values: Sequence[Value]) -> Value:
        """The value of the call of a module that is no activation."""
        if isinstance(module, _PASS_THROUGH):
            return replace(argument.reshaped(), channels=argument.channels if isinstance(module, nn.Identity) else None)
        if isinstance(module, _DROPOUTS):
            if module.inplace:
                overwrite(argument)
            # in eval mode a dropout returns its argument
            return replace(argument.reshaped(), channels=argument.channels)
        returned = self.read(module, self.path_of(module, frame))
        version = self.forward_of(module)
        if version is not None and any(value.every_result() for value in values) and self.may_follow(version):
            returned = self.follow(version, [(None, value) for value in values])
            values = ()
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

    def forward_of(self, module: nn.Module) -> FunctionVersion | None:
        """The forward of a module that was read."""
        return next((each for each in self.versions.get(id(module), ()) if each.attribute == "forward"), None)

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
        return [resolve.module_attribute(module, key, slot) for key in resolve.children(module)]

    def read(self, module: nn.Module, path: str) -> Value:
        """Read the forward of a module once; return what is known of its value."""
        if id(module) not in self.returned:
            self.returned[id(module)] = ANYTHING
            self.returned[id(module)] = self._read(module, path)
        return self.returned[id(module)]

    def _read(self, module: nn.Module, path: str) -> Value:
        if type(module).__name__ == "OptimizedModule":
            self.refuse(path, "it is compiled (torch.compile): compile the model after the surgery")
        elif isinstance(module, torch.jit.ScriptModule):
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
                reason = f"its forward was put on the instance as a function, not as a method, and uses {applied!r}"
                self.refuse(path, f"{reason}: bind it with types.MethodType")
            return ANYTHING
        cls = holder_of(type(module), "forward") if own is None else None
        held = vars(cls)["forward"] if cls is not None else getattr(own, "__func__", own)
        version = self.own_method(module, path, "forward", held, cls)
        holder = holder_of(type(module), "__call__")
        if (
            holder is not None
            and not resolve.is_torch(holder)
            and activation_in(vars(holder)["__call__"], type(module))
        ):
            called = self.own_method(module, path, "__call__", vars(holder)["__call__"], holder)
            if called is not None and called.sites():
                return called.returned or ANYTHING
        return version.returned or ANYTHING if version is not None else ANYTHING

    def read_graph(self, module: fx.GraphModule, path: str) -> Value:
        """Read a module whose forward is a torch.fx graph."""
        raise NotImplementedError


def _is_of_torch(kind: type[nn.Module]) -> bool:
    """Whether torch defines what a call of the module runs."""
    return all(resolve.is_torch(holder_of(kind, name)) for name in ("forward", "__call__"))


def holder_of(kind: type, name: str) -> type | None:
    return next((cls for cls in kind.__mro__ if name in vars(cls)), None)


def _takes_one_tensor(module: nn.Module) -> bool:
    function = getattr(vars(module).get("forward", type(module).forward), "__wrapped__", type(module).forward)
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    required = code.co_argcount - len(function.__defaults__ or ())
    return bool(required == 2 and code.co_argcount >= 2 and code.co_kwonlyargcount == 0)


def _branches(function: Any) -> bool:
    """Whether a function has a branch."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is None or any("JUMP" in each.opname and "_IF_" in each.opname for each in dis.get_instructions(code))


def _names_activation(module: nn.Module) -> bool:
    if any(torch_activations.is_activation_class(cls) for cls in type(module).__mro__):
        return True
    return any(
        activation_in(type(each).forward, type(each))
        or any(activation_in(value) for value in vars(each).values() if callable(value))
        for each in module.modules()
    )
