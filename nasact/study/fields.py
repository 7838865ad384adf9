"""What TrialSpec declares at each path of a study: types, components and short forms. Derived from its nodes.

A node that is added to a section is found here without a further line.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from pydantic import BaseModel

from nasact.study.annotations import alternatives, item_of, model_in
from nasact.study.components import Component, Node
from nasact.study.shorthand import Path
from nasact.study.spec import TrialSpec


class NodePlace(NamedTuple):
    """A node of the tree: its path, its class, and whether a list of such nodes stands there."""

    path: Path
    node: type[Node]
    many: bool


@cache
def node_places() -> tuple[NodePlace, ...]:
    """Every node below the top of the tree, in the order of the fields."""
    return tuple(_nodes_below(TrialSpec, ()))


def _nodes_below(model: type[BaseModel], path: Path) -> Iterator[NodePlace]:
    for name, info in model.model_fields.items():
        for node, many in ((model_in(info.annotation), False), (model_in(item_of(info.annotation)), True)):
            if node is not None and issubclass(node, Node):
                yield NodePlace((*path, name), node, many)
                if not many:
                    yield from _nodes_below(node, (*path, name))


@cache
def short_forms() -> dict[Path, type[Node]]:
    """Path -> class of the nodes that may be written as one plain value."""
    return {
        place.path: place.node for place in node_places() if place.node.shorthand_key is not None and not place.many
    }


def component_at(path: Path) -> type[Component] | None:
    """The component whose option or name `path` leads to; None if it leads to something else."""
    for place in node_places():
        size = len(place.path) + place.many
        if issubclass(place.node, Component) and len(path) == size + 1 and path[: len(place.path)] == place.path:
            return place.node
    return None


def field_at(path: Path) -> Any:
    """What TrialSpec declares at a path: a type, or None where it declares nothing (an option of a component)."""
    declared: Any = TrialSpec
    for part in path:
        model = model_in(declared)
        if model is not None and issubclass(model, Component) and part != "name":
            return None
        if model is not None and part in model.model_fields:
            declared = model.model_fields[str(part)].annotation
        elif isinstance(part, int) and item_of(declared) is not None:
            declared = item_of(declared)
        else:
            return None
    kinds = [kind for kind in alternatives(declared) if kind is not type(None)]
    return kinds[0] if len(kinds) == 1 else declared


def scalar_paths(model: type[BaseModel] = TrialSpec, path: Path = ()) -> Iterator[Path]:
    """The path of every key that holds no node."""
    for name, info in model.model_fields.items():
        node = model_in(info.annotation)
        if node is None:
            yield (*path, name)
        elif not issubclass(node, Component):
            yield from scalar_paths(node, (*path, name))
