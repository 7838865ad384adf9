"""Keys of a study that have a new name: the old name is accepted, with one line that states the new one.

Knows trees and paths, and no meaning of any key. A new row in `RENAMED` is all that a further rename needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nasact.errors import StudyError
from nasact.study.shorthand import Path
from nasact.study.source import Source, dotted

RENAMED: dict[Path, str] = {
    ("hygiene", "widen"): "input_scale",
    ("hygiene",): "redundancy",
    ("search", "temperature", "slows_alpha"): "scale_alpha_lr",
}
"""Path of an old key -> the new name of its last part. Applied in order: what is inside a key comes before the key."""


def rename_old_keys(
    tree: Mapping[str, Any], source: Source | None = None
) -> tuple[dict[str, Any], Source | None, tuple[str, ...]]:
    """`tree` under the new names, its source with the same lines for them, and one message for each old key found.

    Raises StudyError if an old key and its new name are both given.
    """
    renamed: dict[str, Any] = dict(tree)
    messages = []
    for path, new in RENAMED.items():
        holder = _mapping_at(renamed, path[:-1])
        old = str(path[-1])
        if holder is None or old not in holder:
            continue
        place = source.place(path) if source is not None else ""
        new_path = (*path[:-1], new)
        if new in holder:
            raise StudyError(f"{place}{dotted(path)}: is the old name of {dotted(new_path)!r}: give one of them only")
        messages.append(f"{place}{dotted(path)}: this key is now called {new!r}; the old name is still accepted")
        renamed = _rename(renamed, path, new)
        source = None if source is None else _moved(source, path, new_path)
    return renamed, source, tuple(messages)


def _mapping_at(tree: Any, path: Path) -> Mapping[str, Any] | None:
    for part in path:
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree if isinstance(tree, Mapping) else None


def _rename(tree: Mapping[str, Any], path: Path, new: str) -> dict[str, Any]:
    """The same mapping, in the same order, with the last key of `path` called `new`."""
    head, rest = path[0], path[1:]
    if not rest:
        return {new if key == head else key: value for key, value in tree.items()}
    return {key: _rename(value, rest, new) if key == head else value for key, value in tree.items()}


def _moved(source: Source, old: Path, new: Path) -> Source:
    size = len(old)
    lines = {(*new, *path[size:]) if path[:size] == old else path: line for path, line in source.lines.items()}
    return replace(source, lines=lines)
