"""The syntax tree of a function, proven to be that function's, and a function compiled again from an edited tree.

A source is accepted only if compiling its file gives the byte code of the function: `inspect.getsource` alone follows
`__wrapped__`, takes lambdas by line and accepts a file that was edited after its import.
"""

from __future__ import annotations
import __future__

import ast
import copy
import hashlib
import linecache
import types
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

NOT_AVAILABLE = "its source is not available (defined by exec, in an interactive session, or compiled)"
CHANGED = "its file has changed since it was imported"

_ATTACHED = "_nasact_source"
"""The attribute of a function that was compiled again: its source."""

_FUTURE_FLAGS = 0
for _name in __future__.all_feature_names:
    _FUTURE_FLAGS |= getattr(__future__, _name).compiler_flag


class NoSource(Exception):
    """A function without a source that is proven to be its own; the message is the reason."""


@dataclass(frozen=True, eq=False)
class FunctionSource:
    """A function with its syntax tree.

    `nodes`: the nodes of the tree in the order of `ast.walk`; an edit names a node by its index. `class_name`: the
    innermost class around the function's definition, which mangles private names; None outside of a class.
    """

    function: types.FunctionType
    node: FunctionNode
    nodes: tuple[ast.AST, ...]
    class_name: str | None

    def index(self, node: ast.AST) -> int:
        """The index of a node of the tree."""
        return self._indices()[id(node)]

    def _indices(self) -> dict[int, int]:
        found = self.__dict__.get("_by_id")
        if found is None:
            found = {id(node): index for index, node in enumerate(self.nodes)}
            object.__setattr__(self, "_by_id", found)
        return found

    def assignments(self, name: str) -> int:
        """How often the function and those in it assign a name."""
        counts = self.__dict__.get("_assignments")
        if counts is None:
            counts = Counter(node.id for node in self.nodes if isinstance(node, ast.Name) and _assigns(node))
            for node in self.nodes:
                if isinstance(node, ast.Nonlocal | ast.Global):
                    counts.update(node.names * 2)
            object.__setattr__(self, "_assignments", counts)
        return int(counts[name])

    def place(self, node: ast.AST) -> str:
        """The file and line of a node, for messages."""
        return f"{self.function.__code__.co_filename}:{getattr(node, 'lineno', self.function.__code__.co_firstlineno)}"


def _assigns(node: ast.Name) -> bool:
    return not isinstance(node.ctx, ast.Load)


def function_of(source: FunctionSource) -> types.FunctionType:
    """The function that a source is of."""
    function: types.FunctionType = vars(source)["function"]
    return function


@dataclass(frozen=True, eq=False)
class _Definition:
    """A function in a file: its syntax, its code as compiled from the file, and the class around it."""

    node: FunctionNode
    code: types.CodeType
    class_name: str | None


def read_source(function: types.FunctionType) -> FunctionSource:
    """The source of a Python function; NoSource if it has none, or if its file now holds other code."""
    attached = vars(function).get(_ATTACHED)
    if isinstance(attached, FunctionSource) and attached.function is function:
        return attached
    code = function.__code__
    for fresh in (False, True):
        if fresh:
            linecache.checkcache(code.co_filename)
        text = "".join(linecache.getlines(code.co_filename, function.__globals__))
        if not text:
            continue
        for definition in _definitions(text, code.co_filename).get((code.co_name, code.co_firstlineno), ()):
            if _equal(definition.code, code):
                nodes = tuple(ast.walk(definition.node))
                return FunctionSource(function, definition.node, nodes, definition.class_name)
        rewritten = _rewritten_by_pytest(function, text)
        if rewritten is not None:
            return FunctionSource(function, rewritten.node, tuple(ast.walk(rewritten.node)), rewritten.class_name)
    raise NoSource(CHANGED if text else NOT_AVAILABLE)


def _rewritten_by_pytest(function: types.FunctionType, text: str) -> _Definition | None:
    """The definition of a function whose asserts pytest has rewritten: its byte code is not that of its file."""
    loader = function.__globals__.get("__loader__")
    if type(loader).__name__ != "AssertionRewritingHook":
        return None
    code = function.__code__
    for found in _definitions(text, code.co_filename).get((code.co_name, code.co_firstlineno), ()):
        arguments = found.code.co_varnames[: found.code.co_argcount]
        if arguments == code.co_varnames[: code.co_argcount] and any(
            isinstance(node, ast.Assert) for node in ast.walk(found.node)
        ):
            return found
    return None


@lru_cache(maxsize=512)
def _definitions(text: str, file: str) -> dict[tuple[str, int], list[_Definition]]:
    """By name and first line: the functions of a file."""
    found: dict[tuple[str, int], list[_Definition]] = {}
    try:
        tree = ast.parse(text, file)
        module = compile(tree, file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return found
    codes: dict[tuple[str, int], list[types.CodeType]] = {}
    for code in _nested_codes(module):
        codes.setdefault((code.co_name, code.co_firstlineno), []).append(code)
    for node, class_name in _functions(tree, None):
        name = "<lambda>" if isinstance(node, ast.Lambda) else node.name
        decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
        line = min([node.lineno, *(each.lineno for each in decorators)])
        for code in codes.get((name, line), ()):
            if not isinstance(node, ast.Lambda) or _covers(node, code):
                found.setdefault((name, line), []).append(_Definition(node, code, class_name))
    return found


def _functions(node: ast.AST, class_name: str | None) -> Iterator[tuple[FunctionNode, str | None]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child, class_name
        yield from _functions(child, child.name if isinstance(child, ast.ClassDef) else class_name)


def _nested_codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _nested_codes(constant)


def _covers(node: ast.Lambda, code: types.CodeType) -> bool:
    """Whether the code of a lambda comes from this node, of several in one line."""
    body = node.body
    places = [place for place in code.co_positions() if None not in place and place[2:] != (0, 0)]
    return all(
        (body.lineno, body.col_offset) <= (line, column)
        and (end_line, end_column) <= (body.end_lineno, body.end_col_offset)
        for line, end_line, column, end_column in places[1:]
    )


def _equal(a: types.CodeType, b: types.CodeType) -> bool:
    """Whether two code objects do the same and come from the same place."""
    attributes = (
        "co_code",
        "co_names",
        "co_varnames",
        "co_freevars",
        "co_cellvars",
        "co_argcount",
        "co_kwonlyargcount",
    )
    if any(getattr(a, name) != getattr(b, name) for name in attributes) or len(a.co_consts) != len(b.co_consts):
        return False
    if list(a.co_positions()) != list(b.co_positions()):
        return False
    return all(
        _equal(one, other)
        if isinstance(one, types.CodeType) and isinstance(other, types.CodeType)
        else type(one) is type(other) and repr(one) == repr(other)
        for one, other in zip(a.co_consts, b.co_consts, strict=True)
    )


def code_digest(code: types.CodeType) -> str:
    """A digest of what a code object does, which does not depend on where its file lies."""
    digest = hashlib.sha256()
    for each in (code, *_nested_codes(code)):
        constants = [constant for constant in each.co_consts if not isinstance(constant, types.CodeType)]
        digest.update(repr((each.co_code, each.co_names, each.co_varnames, constants)).encode())
    return digest.hexdigest()[:16]


def compile_again(source: FunctionSource, node: FunctionNode, owner: str | None = None) -> types.FunctionType:
    """The function of `source` with the edited tree `node` as its body.

    Globals, closure cells, defaults, annotations, file name and line numbers are those of the function. `owner`: the
    name of an additional first parameter.
    """
    function, code = source.function, source.function.__code__
    definition = _definition(node, code.co_name, owner)
    free = [name for name in code.co_freevars if name != "__class__"]
    # In a class, the name of the function is not visible in its body, as in the author's file. Underscores before the
    # name of the class change that name, but not how private names are mangled.
    body = ast.ClassDef(
        name=f"____{source.class_name or ''}", bases=[], keywords=[], body=[definition], decorator_list=[]
    )
    names = [ast.Assign(targets=[ast.Name(id=name, ctx=ast.Store())], value=ast.Constant(value=None)) for name in free]
    empty = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    outer = ast.FunctionDef(name="_", args=empty, body=[*names, body], decorator_list=[])
    for each in (outer, body, *names):
        ast.copy_location(each, definition)
    tree = ast.fix_missing_locations(ast.Module(body=[outer], type_ignores=[]))
    flags = code.co_flags & _FUTURE_FLAGS
    compiled = compile(tree, code.co_filename, "exec", flags=flags, dont_inherit=True)
    inner = next(
        each
        for each in _nested_codes(compiled)
        if each.co_name == definition.name and each.co_firstlineno == definition.lineno
    )
    inner = inner.replace(co_name=code.co_name, co_qualname=code.co_qualname, co_firstlineno=code.co_firstlineno)
    cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
    closure = tuple(cells[name] for name in inner.co_freevars)
    made = types.FunctionType(inner, function.__globals__, function.__name__, function.__defaults__, closure)
    made = with_attributes_of(function, made)
    vars(made)[_ATTACHED] = FunctionSource(made, definition, tuple(ast.walk(definition)), source.class_name)
    return made


def with_attributes_of(function: types.FunctionType, made: types.FunctionType) -> types.FunctionType:
    """`made` with the keyword defaults, annotations, name, documentation and attributes of `function`."""
    made.__kwdefaults__ = function.__kwdefaults__
    made.__annotations__ = function.__annotations__
    made.__module__, made.__qualname__, made.__doc__ = function.__module__, function.__qualname__, function.__doc__
    made.__dict__.update(function.__dict__)
    return made


def _definition(node: FunctionNode, name: str, owner: str | None) -> ast.FunctionDef | ast.AsyncFunctionDef:
    """A definition without decorators, defaults and annotations: those of the live function are used."""
    arguments = copy.deepcopy(node.args)
    arguments.defaults, arguments.kw_defaults = [], [None] * len(arguments.kwonlyargs)
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    for argument in every:
        if argument is not None:
            argument.annotation = None
    if owner is not None:
        first = arguments.posonlyargs if arguments.posonlyargs else arguments.args
        first.insert(0, ast.arg(arg=owner))
    if isinstance(node, ast.Lambda):
        result: ast.FunctionDef | ast.AsyncFunctionDef = ast.FunctionDef(
            name="_lambda", args=arguments, body=[ast.copy_location(ast.Return(value=node.body), node.body)],
            decorator_list=[],
        )  # fmt: skip
    else:
        made = ast.AsyncFunctionDef if isinstance(node, ast.AsyncFunctionDef) else ast.FunctionDef
        result = made(name=name, args=arguments, body=node.body, decorator_list=[])
    return ast.copy_location(result, node)
