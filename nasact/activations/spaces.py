"""Search spaces: named sets of candidates, shipped as `search_spaces/*.yaml` or written by the user.

It reads and checks those files and knows nothing of the studies that name them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from nasact.activations.candidate import get
from nasact.errors import StudyError, UnknownName, did_you_mean
from nasact.resources import shipped, shipped_names

_FOLDER = "search_spaces"
_REQUIRED = ("name", "functions")
_OPTIONAL = ("source", "description")


@dataclass(frozen=True, kw_only=True)
class Space:
    """A named set of candidates: `functions` are canonical names, in the file's order."""

    name: str
    functions: tuple[str, ...]
    source: str = ""
    description: str = ""


def space_names() -> tuple[str, ...]:
    """Names of the shipped spaces, sorted."""
    return shipped_names(_FOLDER)


def spaces() -> tuple[Space, ...]:
    """Every shipped space."""
    return tuple(get_space(name) for name in space_names())


def load_space(name: str) -> tuple[str, ...]:
    """The functions of a space: a shipped one by its name, one's own by the path of its YAML file."""
    return get_space(name).functions


def get_space(name: str) -> Space:
    """The whole record of a space: a shipped one by its name, one's own by the path of its YAML file."""
    if name in space_names():
        return read_space(shipped(_FOLDER) / f"{name}.yaml", shown=f"{_FOLDER}/{name}.yaml")
    if name.endswith((".yaml", ".yml")):
        return read_space(Path(name))
    raise UnknownName(f"unknown search space {name!r}.{did_you_mean(name, space_names())} (nasact list spaces)")


def read_space(path: Path, *, shown: str | None = None) -> Space:
    """The space in a YAML file; what is wrong with it is told in one line that begins with the file and the line."""
    place = shown or str(path)
    root = _compose(path, place)
    if not isinstance(root, yaml.MappingNode):
        raise StudyError(f"{place}: expected a mapping with the keys {', '.join(_REQUIRED + _OPTIONAL)}")
    found: dict[str, yaml.Node] = {}
    for key, value in root.value:
        name = str(key.value)
        if name not in _REQUIRED + _OPTIONAL:
            raise StudyError(f"{_at(place, key)}: unknown key {name!r}.{did_you_mean(name, _REQUIRED + _OPTIONAL)}")
        if name in found:
            raise StudyError(f"{_at(place, key)}: the key {name!r} is given twice")
        found[name] = value
    for name in _REQUIRED:
        if name not in found:
            raise StudyError(f"{place}: the key {name!r} is missing")
    texts = {name: _text(place, name, found[name]) for name in found if name != "functions"}
    if texts["name"] != path.stem:
        raise StudyError(
            f"{_at(place, found['name'])}: name: must be {path.stem!r} like the file, not {texts['name']!r}"
        )
    return Space(functions=_functions(place, found["functions"]), **texts)


def _functions(place: str, node: yaml.Node) -> tuple[str, ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise StudyError(f"{_at(place, node)}: functions: expected a list of function names")
    if not node.value:
        raise StudyError(f"{_at(place, node)}: functions: the list is empty, expected at least one function")
    said: dict[str, str] = {}
    for item in node.value:
        written = _text(place, "functions", item)
        try:
            name = get(written).name
        except UnknownName as error:
            raise UnknownName(f"{_at(place, item)}: functions: {error}") from None
        if name in said:
            same = "is given twice" if said[name] == written else f"is the same function as {said[name]!r}"
            raise StudyError(f"{_at(place, item)}: functions: {written!r} {same}")
        said[name] = written
    return tuple(said)


def _compose(path: Path, place: str) -> yaml.Node | None:
    """The file's node tree: unlike the loaded values it knows lines, and keys that are given twice."""
    try:
        node: yaml.Node | None = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except FileNotFoundError:
        raise UnknownName(f"{place}: no such search space file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{place}: cannot be read: {error}") from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise StudyError(f"{place}{line}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise StudyError(f"{place}: not valid YAML: {' '.join(str(error).split())}") from None
    return node


def _text(place: str, key: str, node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str":
        return str(node.value)
    collection = "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
    got = repr(node.value) if isinstance(node, yaml.ScalarNode) else collection
    raise StudyError(f"{_at(place, node)}: {key}: expected a text, but got {got}")


def _at(place: str, node: yaml.Node) -> str:
    return f"{place}:{node.start_mark.line + 1}"
