"""Search spaces: named sets of candidates, shipped as `search_spaces/*.yaml` or written by the user.

Reads and checks these files. Must not know the studies that name them.
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
    """The names of the shipped spaces, sorted."""
    return shipped_names(_FOLDER)


def spaces() -> tuple[Space, ...]:
    """All shipped spaces, sorted by name."""
    return tuple(get_space(name) for name in space_names())


def load_space(name: str) -> tuple[str, ...]:
    """The functions of a space; see `get_space`."""
    return get_space(name).functions


def get_space(name: str) -> Space:
    """The space with this name (shipped) or in the YAML file at this path; UnknownName or StudyError if it fails."""
    if name in space_names():
        return read_space(shipped(_FOLDER) / f"{name}.yaml", shown=f"{_FOLDER}/{name}.yaml")
    if name.endswith((".yaml", ".yml")):
        return read_space(Path(name))
    raise UnknownName(f"unknown search space {name!r}.{did_you_mean(name, space_names())} (nasact list spaces)")


def read_space(path: Path, *, shown: str | None = None) -> Space:
    """Read a space from a YAML file; StudyError or UnknownName, in one line that begins with the file and the line.

    `shown`: the file's name in errors; None: `path`.
    """
    place = shown or str(path)
    root = _compose(path, place)
    if not isinstance(root, yaml.MappingNode):
        raise StudyError(f"{place}: expected a mapping with the keys {', '.join(_REQUIRED + _OPTIONAL)}")
    nodes: dict[str, yaml.Node] = {}
    for key, value in root.value:
        name = str(key.value)
        if name not in _REQUIRED + _OPTIONAL:
            raise StudyError(f"{_at(place, key)}: unknown key {name!r}.{did_you_mean(name, _REQUIRED + _OPTIONAL)}")
        if name in nodes:
            raise StudyError(f"{_at(place, key)}: the key {name!r} is given twice")
        nodes[name] = value
    for name in _REQUIRED:
        if name not in nodes:
            raise StudyError(f"{place}: the key {name!r} is missing")
    texts = {name: _text(place, name, nodes[name]) for name in nodes if name != "functions"}
    if texts["name"] != path.stem:
        raise StudyError(
            f"{_at(place, nodes['name'])}: name: must be {path.stem!r} like the file, not {texts['name']!r}"
        )
    return Space(functions=_functions(place, nodes["functions"]), **texts)


def _functions(place: str, node: yaml.Node) -> tuple[str, ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise StudyError(f"{_at(place, node)}: functions: expected a list of function names")
    if not node.value:
        raise StudyError(f"{_at(place, node)}: functions: the list is empty, expected at least one function")
    spellings: dict[str, str] = {}  # canonical name -> as written in the file
    for item in node.value:
        written = _text(place, "functions", item)
        try:
            name = get(written).name
        except UnknownName as error:
            raise UnknownName(f"{_at(place, item)}: functions: {error}") from None
        if name in spellings:
            same = "is given twice" if spellings[name] == written else f"is the same function as {spellings[name]!r}"
            raise StudyError(f"{_at(place, item)}: functions: {written!r} {same}")
        spellings[name] = written
    return tuple(spellings)


def _compose(path: Path, place: str) -> yaml.Node | None:
    """The file's node tree: unlike loaded values, it has line numbers and keeps keys that are given twice."""
    try:
        node: yaml.Node | None = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except FileNotFoundError:
        raise UnknownName(f"{place}: this search space file does not exist") from None
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
