"""Installs modules at a model's sites: sets attributes, and exchanges the calls of functional activations.

The model object, its other modules, hooks, device, dtype and mode are kept. A module in whose code a call is exchanged
gets a subclass of its class (rewrite.py).
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from copy import copy
from typing import Any

from torch import fx, nn

from nasact.surgery.plan import SurgeryPlan
from nasact.surgery.reading.values import FoundSite
from nasact.surgery.reading.versions import CallEdit, FunctionVersion, Turns
from nasact.surgery.rewrite import Exchange, Names, Rewrite, rewrite_class
from nasact.surgery.write_back import Copied, WriteBack

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


_FULL_BACKWARD = "_is_full_backward_hook"


def install(plan: SurgeryPlan, modules: Mapping[str, nn.Module]) -> nn.Module:
    """Install `modules` (site name -> module) in `plan.model`, in place; sites that are not named do not change.

    Returns the model, or the new module if the model itself was the activation.
    """
    root = plan.model
    installed: dict[int, nn.Module] = {}
    for name, module in modules.items():
        location = plan.location(name)
        module.train((location.parent or root).training)
        placed = _placed(module, location.found)
        installed[id(location.found)] = placed
        if location.parent is None:
            root = placed
            continue
        _set(location.parent, location.key, placed)
    _install_partners(plan, installed)
    for versions in plan.versions.values():
        _rewrite(versions, installed)
    _edit_graphs(plan, installed)
    return root


def _placed(module: nn.Module, site: FoundSite) -> nn.Module:
    """`module` with the hooks of the original, and with the copies that the code around the site needs."""
    placed = module
    copies = (site.copies_input or site.copies_output) and module is not site.original
    if site.write_back or copies:  # the original needs no copies
        inner = without_hooks(module) if module is site.original else module
        placed = WriteBack(inner) if site.write_back else Copied(inner, site.copies_input, site.copies_output)
        placed.training = module.training
    copy_hooks(site.original, placed)
    return placed


def _set(parent: nn.Module, key: str, module: nn.Module) -> None:
    parent.__dict__.pop(key, None)
    nn.Module.__setattr__(parent, key, module)  # the class may forbid new attributes
    if isinstance(parent, nn.TransformerEncoderLayer):
        parent.activation_relu_or_gelu = 0  # disables its fused inference path, which would skip the new activation


def _install_partners(plan: SurgeryPlan, installed: dict[int, nn.Module]) -> None:
    """Install the originals of sites that are not replaced where their call is exchanged with that of another site."""
    edits = [edit for versions in plan.versions.values() for version in versions for edit in version.edits.values()]
    together = [list(edit.sites.values()) for edit in edits]
    together += [[site] for site in plan.found if site.node is not None]
    for sites in together:
        if not any(_is_changed(site, installed) for site in sites):
            continue
        for site in sites:
            if id(site) not in installed:
                original = site.original
                installed[id(site)] = _placed(original, site)
                _set(site.owner, site.key, installed[id(site)])


def _is_changed(site: FoundSite, installed: Mapping[int, nn.Module]) -> bool:
    return id(site) in installed or (site.shares is not None and id(site.shares) in installed)


def _rewrite(versions: list[FunctionVersion], installed: Mapping[int, nn.Module]) -> None:
    """Rewrite the functions of one module in which a call is exchanged."""
    owner = versions[0].owner
    if not any(
        id(site) in installed for version in versions for edit in version.edits.values() for site in edit.sites.values()
    ):
        return
    targets = {
        id(target) for version in versions for edit in version.edits.values() for target in edit.targets.values()
    }
    rewrites = []
    for version in versions:
        is_entry = not version.attribute.startswith(PRIVATE)
        if not is_entry and id(version) not in targets:
            continue
        exchanges = tuple(
            exchange
            for index, edit in sorted(version.edits.items())
            if (exchange := _exchange(version, index, edit, installed)) is not None
        )
        if exchanges or not is_entry:
            rewrites += [
                Rewrite(name, version.outer, version.locator, version.owner_name, version.as_method, exchanges)
                for name in version.names or [version.attribute]
            ]
    rewrite_class(owner, rewrites)


PRIVATE = "_nasact_"
"""How the names of functions begin that surgery adds to a class."""


def _exchange(
    version: FunctionVersion, index: int, edit: CallEdit, installed: Mapping[int, nn.Module]
) -> Exchange | None:
    if edit.sites:
        if not any(id(site) in installed for site in edit.sites.values()):
            return None
        names = _names({turns: site.key for turns, site in edit.sites.items()}, edit.loops, version)
        return Exchange(index, names, argument=edit.argument, loops=edit.loops if isinstance(names, tuple) else ())
    names = _names({turns: target.attribute for turns, target in edit.targets.items()}, edit.loops, version)
    node = version.source.nodes[index]
    called = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""
    if isinstance(names, str) and not names.startswith(PRIVATE) and names.endswith(called) and not edit.drop_first:
        return None  # the method under its own name
    return Exchange(index, names, drop_first=edit.drop_first, loops=edit.loops if isinstance(names, tuple) else ())


def _names(by_turn: Mapping[Turns, str], loops: tuple[int, ...], version: FunctionVersion) -> Names:
    """The names by turn, nested as the loops are; one name if all turns have the same."""
    if len(set(by_turn.values())) == 1 and (not loops or len(by_turn) == _count(loops, version)):
        return next(iter(by_turn.values()))

    def nested(turns: Turns) -> Names:
        if len(turns) == len(loops):
            return by_turn.get(turns, "")
        return tuple(nested((*turns, turn)) for turn in range(version.loop_lengths[loops[len(turns)]]))

    return nested(())


def _count(loops: Iterable[int], version: FunctionVersion) -> int:
    count = 1
    for loop in loops:
        count *= version.loop_lengths[loop]
    return count


def _edit_graphs(plan: SurgeryPlan, installed: Mapping[int, nn.Module]) -> None:
    """Exchange the nodes of torch.fx modules: their graph is their code."""
    changed: dict[int, fx.GraphModule] = {}
    for site in plan.found:
        if site.node is None or id(site) not in installed:
            continue
        node, graph = site.node, site.node.graph
        source: Any = node.args[0] if node.args else node.kwargs["input"]
        with graph.inserting_before(node):
            call = graph.call_module(site.key, args=(source,))
        node.replace_all_uses_with(call)
        graph.erase_node(node)
        assert isinstance(site.owner, fx.GraphModule)
        changed[id(site.owner)] = site.owner
    for owner in changed.values():
        owner.recompile()


def copy_hooks(source: nn.Module, target: nn.Module) -> None:
    """Register the forward and backward hooks of `source` on `target` too."""
    for name in _HOOK_DICTIONARIES:
        getattr(target, name).update(getattr(source, name))
    if vars(source).get(_FULL_BACKWARD) is not None:
        vars(target)[_FULL_BACKWARD] = vars(source)[_FULL_BACKWARD]


def without_hooks(module: nn.Module) -> nn.Module:
    """A shallow copy of `module` without its hooks."""
    copied = copy(module)
    for name, hooks in vars(module).items():
        if name.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called")) and not name.startswith("_state"):
            copied.__dict__[name] = type(hooks)()
    return copied
