"""Putting modules at a model's sites: attributes are set, functional calls are redirected in the module's own forward.

The model object, its other modules, hooks, device, dtype and mode stay. A module whose forward is rewritten keeps its
class as the base of its new one.
"""

from __future__ import annotations

import itertools
import linecache
from collections.abc import Mapping
from typing import Any

from torch import fx, nn

from nasact.supernet.sites import Place, Plan, later_users, site_input, works_in_place
from nasact.supernet.trace import Traced

HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)
_file_numbers = itertools.count()


def install(plan: Plan, modules: Mapping[str, nn.Module]) -> nn.Module:
    """Put `modules` (site name -> module) into `plan.model`, in place; sites that are not named stay as they are.

    Returns the model; another object only where the model itself was the activation.
    """
    root = plan.model
    rewritten: dict[int, nn.Module] = {}
    for name, module in modules.items():
        place = plan.sites[name][1]
        _keep_hooks(place, module)
        module.train((place.parent or root).training)
        if place.parent is None:
            root = module
            continue
        if place.nodes:
            _redirect(place)
            rewritten[id(place.parent)] = place.parent
        place.parent.__dict__.pop(place.key, None)
        setattr(place.parent, place.key, module)
        if hasattr(place.parent, "activation_relu_or_gelu"):
            # nn.TransformerEncoderLayer: 0 keeps its fused inference path, which would skip the new activation, off
            place.parent.activation_relu_or_gelu = 0  # type: ignore[assignment]
    for owner in rewritten.values():
        _rewrite(owner, plan.traced[id(owner)][1])
    return root


def _keep_hooks(place: Place, module: nn.Module) -> None:
    for kind in HOOKS:
        getattr(module, kind).update(getattr(place.original, kind))


def _redirect(place: Place) -> None:
    """Point an activation's nodes at the attribute `place.key`."""
    assert place.parent is not None
    for node in place.nodes:
        source = site_input(node)
        after = later_users(node, source) if works_in_place(node, place.parent) else []
        with node.graph.inserting_before(node):
            call = node.graph.call_module(place.key, args=(source,))
        for user in after:
            # what read the overwritten input after an in-place activation read the activation's result
            user.replace_input_with(source, call)
        node.replace_all_uses_with(call)
        node.graph.erase_node(node)


def _rewrite(owner: nn.Module, traced: Traced) -> None:
    codes = [_code(graph) for graph in traced.graphs]
    base = type(owner)
    owner.__class__ = _subclass(base, codes)


def _code(graph: fx.Graph) -> tuple[str, dict[str, Any]]:
    code = graph.python_code("self")
    return code.src, code.globals


def _subclass(base: type[nn.Module], codes: list[tuple[str, dict[str, Any]]]) -> type[nn.Module]:
    """A subclass of `base` with the given forward; with two, the first in train mode and the second in eval mode."""
    forwards = []
    for source, names in codes:
        # a file name of its own lets tracebacks, inspect and torch.compile see the source
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
    """Pickle and copy by the base class and the sources: the subclass itself has no importable name."""
    base, codes = self._nasact_rewritten
    reduced = super(type(self), self).__reduce_ex__(protocol)
    if reduced[0].__name__ != "__newobj__":  # the base class reduces itself in a way of its own
        return reduced
    packed = [(source, {name: _pack(value) for name, value in names.items()}) for source, names in codes]
    return (_revive, (base, packed), *reduced[2:])


def _pack(value: Any) -> Any:
    name = getattr(value, "__name__", None)
    return _Module(name) if type(value).__name__ == "module" and name else value


class _Module:
    """A module that a rewritten forward refers to, by name: modules cannot be pickled."""

    def __init__(self, name: str) -> None:
        self.name = name


def _revive(base: type[nn.Module], packed: list[tuple[str, dict[str, Any]]]) -> nn.Module:
    import importlib

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
