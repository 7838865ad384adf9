"""Functions of the user's code with single call expressions exchanged, on a subclass of the module's class.

All else of a function stays: its statements, globals, closure, defaults, decorators, file name and line numbers.
"""

from __future__ import annotations

import ast
import copy
import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from nasact.errors import SurgeryError
from nasact.surgery.decorators import decorated_like, undecorated
from nasact.surgery.locators import MADE_BY, Locator, locate_function
from nasact.surgery.source_code import FunctionNode, code_digest, compile_again, read_source

Names = str | tuple[Any, ...]
"""The name of an attribute or, in a loop over modules, one for each turn; "" for a turn that keeps the call."""


@dataclass(frozen=True)
class Exchange:
    """One call expression, by the index of its node, that calls an attribute of the owner instead.

    `argument`: the index of the only argument that is kept; None: all arguments are kept, without the first one if
    `drop_first`. `loops`: the indices of the loops whose turns choose among the names.
    """

    node: int
    names: Names
    argument: int | None = None
    drop_first: bool = False
    loops: tuple[int, ...] = ()


@dataclass(frozen=True)
class Rewrite:
    """A function with exchanged calls, as the attribute `attribute` of a module's class.

    `owner_name`: the parameter that holds the module; `as_method`: False if it becomes an additional first parameter.
    """

    attribute: str
    outer: Any
    locator: Locator | None
    owner_name: str
    as_method: bool
    exchanges: tuple[Exchange, ...]

    def __deepcopy__(self, memo: dict[int, Any]) -> Rewrite:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if self.locator is None:
            name = getattr(self.outer, "__qualname__", self.attribute)
            raise pickle.PicklingError(
                f"{name} is a local function whose calls were exchanged, which cannot be pickled: save the state_dict"
            )
        digest = code_digest(undecorated(self.outer).__code__)
        return (revive_rewrite, (self.attribute, self.locator, digest, self.owner_name, self.as_method, self.exchanges))


def revive_rewrite(
    attribute: str, locator: Locator, digest: str, owner_name: str, as_method: bool, exchanges: tuple[Exchange, ...]
) -> Rewrite:
    """The reverse of pickling a Rewrite. Raises UnpicklingError if the user's code has changed."""
    outer = locate_function(locator, digest, f"the function {attribute!r}")
    return Rewrite(attribute, outer, locator, owner_name, as_method, exchanges)


def rewrite_class(owner: nn.Module, rewrites: Iterable[Rewrite]) -> None:
    """Give `owner` a subclass of its class with the rewritten functions. Equal rewrites share one class."""
    chosen = tuple(rewrites)
    for each in chosen:
        if each.attribute in vars(owner):  # a function that was bound to the instance
            del owner.__dict__[each.attribute]
    owner.__class__ = rewritten_class(type(owner), chosen)


_classes: dict[tuple[int, tuple[Rewrite, ...]], type[nn.Module]] = {}


def rewritten_class(base: type[nn.Module], rewrites: tuple[Rewrite, ...]) -> type[nn.Module]:
    """The subclass of `base` with the rewritten functions; the same for equal rewrites, so that it compiles once."""
    known = _classes.get((id(base), rewrites))
    if known is None:
        known = _classes[id(base), rewrites] = _rewritten_class(base, rewrites)
    return known


def _rewritten_class(base: type[nn.Module], rewrites: tuple[Rewrite, ...]) -> type[nn.Module]:
    def reduce(self: Any, protocol: Any) -> Any:
        # by the base class and the rewrites, as the subclass itself has no importable name
        reduced = super(kind, self).__reduce_ex__(protocol)
        if reduced[0] is revive:  # the base class is a rewritten one too
            return (revive, (*reduced[1], rewrites), *reduced[2:])
        if reduced[0].__name__ != "__newobj__":  # the base class has its own way to be pickled
            return reduced
        return (revive, (base, rewrites), *reduced[2:])

    def refuse_script(self: Any) -> Any:
        raise SurgeryError(
            f"{base.__name__}: torch.jit.script would compile the author's file, without the functions at its sites: "
            "use torch.jit.trace, torch.export or torch.compile"
        )

    members: dict[str, Any] = {
        "__prepare_scriptable__": refuse_script,
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
        "__reduce_ex__": reduce,
        MADE_BY: (rewritten_class, base, rewrites),
    }
    for each in rewrites:
        members[each.attribute] = _rewritten_function(each)
    kind = _subclass(base, members)
    return kind


def _subclass(base: type[nn.Module], members: dict[str, Any]) -> type[nn.Module]:
    """A subclass, made without a call of `base.__init_subclass__`: it is no new kind of module that must register."""
    try:
        kind = type.__new__(type(base), base.__name__, (nn.Module,), members)
        kind.__bases__ = (base,)
    except TypeError:  # the objects have another layout
        make: Any = type(base)
        kind = make(base.__name__, (base,), members)
    return kind


def revive(base: type[nn.Module], *layers: tuple[Rewrite, ...]) -> nn.Module:
    """The reverse of pickling a rewritten module: an instance, without state, of the rewritten class."""
    for rewrites in layers:
        base = rewritten_class(base, rewrites)
    return base.__new__(base)


def _rewritten_function(rewrite: Rewrite) -> Any:
    source = read_source(undecorated(rewrite.outer))
    nodes = source.nodes
    memo: dict[int, Any] = {}
    node: FunctionNode = copy.deepcopy(source.node, memo)
    copies = [memo[id(each)] for each in nodes]
    index = {id(each): position for position, each in enumerate(copies)}
    exchanges = {each.node: each for each in rewrite.exchanges}
    node = _Exchanger(copies, index, exchanges, rewrite.owner_name).visit(node)
    made = compile_again(source, node, owner=None if rewrite.as_method else rewrite.owner_name)
    return decorated_like(rewrite.outer, made)


class _Exchanger(ast.NodeTransformer):
    """Exchanges calls, and counts the turns of the loops that choose among several names."""

    def __init__(
        self, nodes: list[ast.AST], index: dict[int, int], exchanges: dict[int, Exchange], owner_name: str
    ) -> None:
        self.nodes, self.index, self.exchanges, self.owner_name = nodes, index, exchanges, owner_name
        self.argument: Any = None
        self.counted = {loop for each in exchanges.values() for loop in each.loops if isinstance(each.names, tuple)}

    def visit(self, node: ast.AST) -> Any:
        position = self.index.get(id(node))
        exchange = self.exchanges.get(position) if position is not None else None
        argument = self.nodes[exchange.argument] if exchange is not None and exchange.argument is not None else None
        result = self.generic_visit(node) if argument is None else self._with_only(node, argument)
        if position in self.counted:
            self._count(result, position)
        if exchange is None:
            return result
        return self._exchanged(node, exchange, argument)

    def _with_only(self, node: ast.AST, argument: ast.AST) -> ast.AST:
        """Visit all below a call: its argument is exchanged in place."""
        self.argument = self.visit(argument) if argument is not node else argument
        return node

    def _exchanged(self, node: ast.AST, exchange: Exchange, argument: ast.AST | None) -> ast.expr:
        assert isinstance(node, ast.expr)
        callee = self._callee(exchange)
        if argument is not None:
            call = ast.Call(func=callee, args=[self.argument], keywords=[])
        else:
            assert isinstance(node, ast.Call)
            call = ast.Call(
                func=callee, args=node.args[1:] if exchange.drop_first else node.args, keywords=node.keywords
            )
        result: ast.expr = call
        if isinstance(exchange.names, tuple) and _has_empty(exchange.names):
            result = ast.IfExp(test=self._chosen(exchange), body=call, orelse=self._kept(node, argument))
        return ast.fix_missing_locations(ast.copy_location(result, node))

    def _kept(self, node: ast.expr, argument: ast.AST | None) -> ast.expr:
        """The author's call, for the turns of a loop that keep it."""
        assert isinstance(node, ast.Call)
        if argument is None:
            return copy.deepcopy(node)
        return ast.Call(func=copy.deepcopy(node.func), args=[copy.deepcopy(self.argument)], keywords=[])

    def _callee(self, exchange: Exchange) -> ast.expr:
        owner = ast.Name(id=self.owner_name, ctx=ast.Load())
        if isinstance(exchange.names, str):
            return ast.Attribute(value=owner, attr=exchange.names, ctx=ast.Load())
        return ast.Call(func=ast.Name(id="getattr", ctx=ast.Load()), args=[owner, self._chosen(exchange)], keywords=[])

    def _chosen(self, exchange: Exchange) -> ast.expr:
        chosen: ast.expr = _literal(exchange.names)
        for loop in exchange.loops:
            turn = ast.Name(id=_turn_name(loop), ctx=ast.Load())
            chosen = ast.Subscript(value=chosen, slice=turn, ctx=ast.Load())
        return chosen

    def _count(self, loop: ast.AST, position: int) -> None:
        assert isinstance(loop, ast.For | ast.AsyncFor | ast.comprehension)
        turn = ast.Name(id=_turn_name(position), ctx=ast.Store())
        loop.target = ast.copy_location(ast.Tuple(elts=[turn, loop.target], ctx=ast.Store()), loop.target)
        called = ast.Call(func=ast.Name(id="enumerate", ctx=ast.Load()), args=[loop.iter], keywords=[])
        loop.iter = ast.copy_location(called, loop.iter)
        ast.fix_missing_locations(loop)


def _turn_name(loop: int) -> str:
    return f"_nasact_turn_{loop}"


def _literal(names: Names) -> ast.expr:
    if isinstance(names, str):
        return ast.Constant(value=names)
    return ast.Tuple(elts=[_literal(each) for each in names], ctx=ast.Load())


def _has_empty(names: Names) -> bool:
    return names == "" if isinstance(names, str) else any(_has_empty(each) for each in names)
