"""Installs modules at a model's sites: sets attributes, and redirects functional calls by rewriting a module's forward.

The model object, its other modules, hooks, device, dtype and mode are kept. A module whose forward is rewritten gets a
subclass of its class.
"""

from __future__ import annotations

import importlib
import itertools
import linecache
from collections.abc import Mapping
from copy import copy
from typing import Any

from torch import fx, nn

from nasact.surgery.sites import SiteLocation, SurgeryPlan, later_users, site_input, works_in_place
from nasact.surgery.trace import TracedForward

# A module's dictionaries of hooks. They are private, but torch has no public way to read a module's hooks.
_HOOK_DICTIONARIES = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)
_file_numbers = itertools.count()


def install(plan: SurgeryPlan, modules: Mapping[str, nn.Module]) -> nn.Module:
    """Install `modules` (site name -> module) in `plan.model`, in place; sites that are not named do not change.

    Returns the model, or the new module if the model itself was the activation.
    """
    root = plan.model
    rewritten: dict[int, nn.Module] = {}
    for name, module in modules.items():
        location = plan.sites[name][1]
        parent = location.parent
        copy_hooks(location.original, module)
        module.train((parent or root).training)
        if parent is None:
            root = module
            continue
        if location.nodes:
            _redirect(location)
            rewritten[id(parent)] = parent
        parent.__dict__.pop(location.key, None)
        setattr(parent, location.key, module)
        if hasattr(parent, "activation_relu_or_gelu"):
            # nn.TransformerEncoderLayer: 0 disables its fused inference path, which would skip the new activation
            parent.activation_relu_or_gelu = 0  # type: ignore[assignment]
    for owner in rewritten.values():
        _rewrite(owner, plan.traced[id(owner)][1])
    return root


def copy_hooks(source: nn.Module, target: nn.Module) -> None:
    """Register the forward and backward hooks of `source` on `target` too."""
    for name in _HOOK_DICTIONARIES:
        getattr(target, name).update(getattr(source, name))


def without_hooks(module: nn.Module) -> nn.Module:
    """A shallow copy of `module` without its hooks."""
    copied = copy(module)
    for name, hooks in vars(module).items():
        if name.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called")) and not name.startswith("_state"):
            copied.__dict__[name] = type(hooks)()
    return copied


def _redirect(location: SiteLocation) -> None:
    """Replace an activation's nodes by calls of the attribute `location.key`."""
    assert location.parent is not None
    for node in location.nodes:
        source = site_input(node)
        readers_after = later_users(node, source) if works_in_place(node, location.parent) else []
        with node.graph.inserting_before(node):
            call = node.graph.call_module(location.key, args=(source,))
        for user in readers_after:
            # after an in-place activation, a node that reads the overwritten input reads the activation's result
            user.replace_input_with(source, call)
        node.replace_all_uses_with(call)
        node.graph.erase_node(node)


def _rewrite(owner: nn.Module, traced: TracedForward) -> None:
    """Give `owner` a subclass of its class whose forward runs the graphs of `traced`."""
    codes = [_code(graph) for graph in traced.graphs]
    base = type(owner)
    owner.__class__ = _subclass(base, codes)


def _code(graph: fx.Graph) -> tuple[str, dict[str, Any]]:
    """The source of a graph's forward, and the global names that the source uses."""
    code = graph.python_code("self")
    return code.src, code.globals


def _subclass(base: type[nn.Module], codes: list[tuple[str, dict[str, Any]]]) -> type[nn.Module]:
    """A subclass of `base` with the given forward. Of two, the first is for train mode and the second for eval mode."""
    forwards = []
    for source, names in codes:
        # a unique file name lets tracebacks, inspect and torch.compile find the source
        file = f"<nasact rewritten {base.__qualname__}.forward {next(_file_numbers)}>"
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        scope = dict(names)
        exec(compile(source, file, "exec"), scope)
        forwards.append(scope["forward"])
    members: dict[str, Any] = {
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
        "__reduce_ex__": _reduce,
        "_nasact_rewritten": (base, codes),
        "forward": forwards[0],
    }
    if len(forwards) == 2:
        members |= {"_forward_train": forwards[0], "_forward_eval": forwards[1], "forward": _forward_by_mode}
    return type(base.__name__, (base,), members)


def _forward_by_mode(self: Any, *args: Any, **kwargs: Any) -> Any:
    return self._forward_train(*args, **kwargs) if self.training else self._forward_eval(*args, **kwargs)


def _reduce(self: Any, protocol: Any) -> Any:
    """Pickle and copy by the base class and the sources, as the subclass itself has no importable name."""
    base, codes = self._nasact_rewritten
    reduced = super(type(self), self).__reduce_ex__(protocol)
    if reduced[0].__name__ != "__newobj__":  # the base class has its own way to be pickled
        return reduced
    packed = [(source, {name: _pack(value) for name, value in names.items()}) for source, names in codes]
    return (_revive, (base, packed), *reduced[2:])


def _pack(value: Any) -> Any:
    name = getattr(value, "__name__", None)
    return _Module(name) if type(value).__name__ == "module" and name else value


class _Module:
    """The name of a Python module that a rewritten forward uses: modules cannot be pickled."""

    def __init__(self, name: str) -> None:
        self.name = name


def _revive(base: type[nn.Module], packed: list[tuple[str, dict[str, Any]]]) -> nn.Module:
    """The reverse of `_reduce`: an instance, without state, of the subclass with the packed forwards."""
    codes = [
        (
            source,
            {
                name: importlib.import_module(value.name) if isinstance(value, _Module) else value
                for name, value in names.items()
            },
        )
        for source, names in packed
    ]
    kind = _subclass(base, codes)
    return kind.__new__(kind)
