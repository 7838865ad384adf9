"""Imports: no circle, also inside a room, under TYPE_CHECKING and inside functions; no private names of others.

The order of the rooms and the places of third-party services are contracts of import-linter (pyproject.toml).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import nasact

ROOT = Path(nasact.__file__).parent
FILES = {
    ".".join(("nasact", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in FILES.items()}

PRIVATE_WITH_A_REASON = {
    "_exit": "os._exit is public: it ends a process without clean-up",
    "_buffers": "the only way to a buffer that is None, and to whether it is persistent",
    "_C": "torch has no public way to ask what autograd will need, nor the type of its built-in functions",
    "_nn": "built-in activations that a model may call and that torch exports nowhere else",
    "_NormBase": "torch's layers of any dimension have no public base class",
    "_ConvNd": "as _NormBase",
    "_DropoutNd": "as _NormBase",
    "_AdaptiveAvgPoolNd": "as _NormBase",
    "_AdaptiveMaxPoolNd": "as _NormBase",
    "_AvgPoolNd": "as _NormBase",
    "_MaxPoolNd": "as _NormBase",
}


def imported(tree: ast.Module, modules: Mapping[str, object]) -> Iterator[str]:
    """The modules that a file imports anywhere in it; `from package import module` counts as the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                name = submodule if submodule in modules else node.module
                if name in modules:
                    yield name


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module (Tarjan 1972), and modules that import themselves."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in sorted(graph[module]):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            component = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(component) > 1 or module in graph[module]:
                found.append(sorted(component))

    for module in graph:
        if module not in index:
            visit(module)
    return found


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}, "e": {"a"}}) == [["b", "c"], ["d"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_module_imports_itself_through_others() -> None:
    graph = {module: set(imported(tree, FILES)) for module, tree in TREES.items()}
    assert len(graph) >= 200
    assert sum(map(len, graph.values())) >= 800
    assert circles(graph) == []


def own_private_names(tree: ast.Module) -> set[str]:
    """What a file itself defines: its functions and methods, and the attributes that it sets on `self`."""
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    attributes = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"
    }
    return functions | attributes


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def private_uses(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Line, name and text of each private name that a file takes from elsewhere."""
    own = own_private_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            if ast.unparse(node.value) not in ("self", "cls"):
                yield node.lineno, node.attr, ast.unparse(node)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if is_private(alias.name):
                    yield node.lineno, alias.name, f"from {node.module} import {alias.name}"


def test_private_uses_are_found() -> None:
    source = "from a import _b\nclass C:\n  def _f(self): self._x = pool._processes\n  def g(self, o): o._f(); o._x"
    assert [text for _, _, text in private_uses(ast.parse(source))] == ["from a import _b", "pool._processes"]


def test_no_file_uses_a_private_name_of_another_without_a_reason() -> None:
    uses = [(module, *use) for module, tree in TREES.items() for use in private_uses(tree)]
    assert {name for _, _, name, _ in uses} >= set(PRIVATE_WITH_A_REASON), "a reason for a name that nobody uses"
    offenders = [f"{module}:{line}: {text}" for module, line, name, text in uses if name not in PRIVATE_WITH_A_REASON]
    assert offenders == []
