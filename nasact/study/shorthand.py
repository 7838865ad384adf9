"""The short forms that a study may be written in, and the full form that the rest of nasact reads.

`dataset: digits` is `dataset: {name: digits}`, `{image_folder: PATH}` is `{name: image_folder, path: PATH}`,
`temperature: 0.5` is `temperature: {start: 0.5}`, `optimiser: sgd` is `optimiser: {name: sgd}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Path = tuple[str | int, ...]

MAIN_OPTION = {"image_folder": "path"}
"""Datasets that may be named by their main option: `{image_folder: PATH}`."""


def named(value: Any) -> Any:
    """`x` as `{name: x}`, and `{image_folder: PATH}` by its name; a mapping with a name is left alone."""
    if isinstance(value, dict):
        for name, option in MAIN_OPTION.items():
            if name in value and "name" not in value:
                rest = {key: entry for key, entry in value.items() if key != name}
                return {"name": name, option: value[name], **rest}
        return value
    return {"name": value}


def temperature(value: Any) -> Any:
    """A plain number is a constant temperature; a temperature with an `end` is annealed exponentially."""
    if not isinstance(value, dict):
        return {"start": value}
    if value.get("end") is not None and "schedule" not in value:
        return {**value, "schedule": "exponential"}
    return value


def expand(
    tree: dict[str, Any], rules: Mapping[Path, tuple[str, Callable[[Any], Any]]]
) -> tuple[dict[str, Any], dict[Path, Path]]:
    """The tree in full form, and for each place that moved: where it is now -> where the user wrote it.

    `rules`: path of a node (section, key) -> the key that its plain value stands for, and the function that expands it.
    """
    written: dict[Path, Path] = {}
    for path, (key, rule) in rules.items():
        tree = _rewrite(tree, path, rule, key, written)
    return tree, written


def _rewrite(
    tree: dict[str, Any], path: Path, rule: Callable[[Any], Any], key: str, written: dict[Path, Path]
) -> dict[str, Any]:
    section, leaf = path
    holder = tree.get(str(section))
    # None means the default, or is a mistake that validation reports; it has no full form
    if not isinstance(holder, dict) or holder.get(str(leaf)) is None:
        return tree
    value = holder[str(leaf)]
    full = rule(value)
    if not isinstance(value, dict):
        written[(*path, key)] = path
    elif full is not value:
        for name, option in MAIN_OPTION.items():
            if name in value and "name" not in value:
                written[(*path, option)] = (*path, name)
    return {**tree, str(section): {**holder, str(leaf): full}}
