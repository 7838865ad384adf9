"""YAML text -> plain tree and the line of every path, so that messages can name the line; and tree -> YAML text.

Reads a safe subset of YAML: `1e-4` is a number, only `true` and `false` are booleans, a key that is given twice is an
error, tags and merge keys are refused. Must not know what a study means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from nasact.errors import StudyError, one_line
from nasact.study.shorthand import Path as TreePath

_MAX_NODES = 20_000  # aliases of aliases grow exponentially; real studies have a few hundred nodes
_STR = "tag:yaml.org,2002:str"
_SEQ = "tag:yaml.org,2002:seq"
_MAP = "tag:yaml.org,2002:map"
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}


@dataclass(frozen=True)
class Source:
    """Where a tree came from: a label to print, and the line of every path."""

    label: str
    lines: Mapping[TreePath, int] = field(default_factory=dict)

    def place(self, path: TreePath) -> str:
        """`studies/mine.yaml:7: `: the line of the path, or of the nearest enclosing part that was written."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return f"{self.label}:{self.lines[path[:length]]}: "
        return f"{self.label}: "

    def line(self, path: TreePath) -> int:
        return next((self.lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self.lines), 0)


def read_file(path: Path, label: str) -> tuple[dict[str, Any], Source]:
    """The tree of a YAML file and its source; StudyError if the file cannot be read as a study."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise StudyError(f"{label}: there is no such file") from None
    except UnicodeDecodeError:
        raise StudyError(f"{label}: expected a study in YAML, but this is not a text file (UTF-8)") from None
    except OSError as error:
        raise StudyError(f"{label}: cannot be read: {error.strerror or error}") from None
    return read_text(text, label)


def read_text(text: str, label: str) -> tuple[dict[str, Any], Source]:
    """The tree of a YAML text and its source."""
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"{mark.line + 1}: " if mark else " "
        raise StudyError(f"{label}:{line}not valid YAML: {one_line(error.problem or error.context)}") from None
    except yaml.reader.ReaderError as error:
        raise StudyError(f"{label}: expected a study in YAML, but this is not text: {one_line(error.reason)}") from None
    except RecursionError:
        raise StudyError(f"{label}: not a study: nested too deeply") from None
    if root is None:
        raise StudyError(f"{label}: the file is empty: a study needs at least `task` and `search_space`")
    reader = _Reader(label)
    tree = reader.value(root, ())
    if not isinstance(tree, dict):
        raise StudyError(f"{label}:1: a study is a mapping of keys to values, but this is {_kind(tree)}")
    return tree, Source(label, reader.lines)


def write_text(tree: Mapping[str, Any]) -> str:
    """YAML that `read_text` reads back as the same tree."""
    text: str = yaml.dump(dict(tree), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=100)
    return text


class _Reader:
    """Walks the composed nodes once, up to _MAX_NODES of them, and collects their lines."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.lines: dict[TreePath, int] = {}
        self.visited = 0
        self.open: list[yaml.Node] = []

    def value(self, node: yaml.Node, path: TreePath) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        self.visited += 1
        if self.visited > _MAX_NODES or len(self.open) > 50 or node in self.open:
            raise self.error(node, "not a study: too large, nested too deeply, or containing itself")
        if node.tag not in (_STR, _SEQ, _MAP):
            raise self.error(node, f"YAML tags are not used here, but got {node.tag!r}")
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node)
        self.open.append(node)
        value = self.mapping(node, path) if isinstance(node, yaml.MappingNode) else self.sequence(node, path)
        self.open.pop()
        return value

    def mapping(self, node: yaml.MappingNode, path: TreePath) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                raise self.error(key_node, f"a key is a word, but got {getattr(key_node, 'value', key)!r}")
            if key in tree:
                first = self.lines[(*path, key)]
                raise self.error(key_node, f"{dotted((*path, key))}: given twice (first in line {first})")
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            tree[key] = self.value(value_node, (*path, key))
        return tree

    def sequence(self, node: yaml.Node, path: TreePath) -> list[Any]:
        return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]

    def scalar(self, node: yaml.ScalarNode) -> Any:
        text = str(node.value)
        if node.style is not None:
            return text
        if text in _WORDS:
            return _WORDS[text]
        try:
            if _INT.fullmatch(text):
                return int(text.replace("_", ""))
            # 010 is eight in YAML 1.1 and ten in YAML 1.2: it stays text, and is refused where a number is expected
            if _FLOAT.fullmatch(text) and not _LEADING_ZERO.fullmatch(text):
                return float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan").lower())
        except ValueError:
            raise self.error(node, f"not a number that can be used: {text[:40]!r}") from None
        return text

    def error(self, node: yaml.Node, message: str) -> StudyError:
        return StudyError(f"{self.label}:{node.start_mark.line + 1}: {message}")


class _Dumper(yaml.SafeDumper):
    """Quotes a text that this reader or another YAML reader would not read as text; writes no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(rf"(?:{_FLOAT.pattern})\Z"), list("-+.0123456789"))


def dotted(path: TreePath) -> str:
    """The path in dotted form: `search.strategy.lr`."""
    return ".".join(str(part) for part in path)


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return "a list"
    return "nothing" if value is None else f"the single value {str(value)[:40]!r}"
