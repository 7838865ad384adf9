"""An activation that the user's code writes out, as a module: an expression, a helper function, or any callable."""

from __future__ import annotations

import ast
import copy
import functools
import pickle
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nasact.surgery.decorators import undecorated
from nasact.surgery.locators import Locator, locate_function
from nasact.surgery.source_code import FunctionSource, code_digest, function_of, read_source

ARGUMENT = "_nasact_x"
"""The name of the argument in an expression that was made a function."""
_TORCH = "_nasact_torch"
_ZERO = f"{_TORCH}.zeros(())"


@dataclass(frozen=True)
class Expression:
    """An expression of a function, as a function of one argument.

    `node`: its index in the function's tree; `arguments`: the indices of the nodes that are the argument; `constants`:
    the values of the function's local names in it. `zeros`: nodes that make a tensor of zeros, of whatever shape.
    """

    node: int
    arguments: tuple[int, ...]
    constants: tuple[tuple[str, Any], ...]
    zeros: tuple[int, ...] = ()

    def build(self, source: FunctionSource) -> Callable[[Tensor], Tensor]:
        """The function. Globals and names of outer functions are looked up when it runs, as in the author's code."""
        memo: dict[int, Any] = {}
        for index in self.arguments:
            node = source.nodes[index]
            memo[id(node)] = ast.copy_location(ast.Name(id=ARGUMENT, ctx=ast.Load()), node)
        for index in self.zeros:
            node = source.nodes[index]
            memo[id(node)] = ast.copy_location(ast.parse(_ZERO, mode="eval").body, node)
        body = copy.deepcopy(source.nodes[self.node], memo)
        assert isinstance(body, ast.expr)
        made: Callable[[Tensor], Tensor] = _function_of_expression(
            body, source, {**dict(self.constants), _TORCH: torch}
        )
        return made


def _function_of_expression(body: ast.expr, source: FunctionSource, constants: Mapping[str, Any]) -> Any:
    """`lambda x: body` with the live globals and closure cells of the function that `source` is of, and constants."""
    function = function_of(source)
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    cells |= {name: types.CellType(value) for name, value in constants.items()}
    argument = ast.arguments(posonlyargs=[], args=[ast.arg(arg=ARGUMENT)], kwonlyargs=[], kw_defaults=[], defaults=[])
    free = ast.arguments(
        posonlyargs=[], args=[ast.arg(arg=name) for name in cells], kwonlyargs=[], kw_defaults=[], defaults=[]
    )
    outer = ast.Lambda(args=free, body=ast.Lambda(args=argument, body=body))
    tree = ast.fix_missing_locations(ast.Expression(body=ast.copy_location(outer, body)))
    code = compile(tree, function.__code__.co_filename, "eval", dont_inherit=True)
    (outer_code,) = (each for each in code.co_consts if isinstance(each, types.CodeType))
    inner = next(each for each in outer_code.co_consts if isinstance(each, types.CodeType))
    closure = tuple(cells[name] for name in inner.co_freevars)
    return types.FunctionType(inner, function.__globals__, "formula", None, closure)


@dataclass(frozen=True)
class Recipe:
    """How the function of a UserFunction is made again: a located function, or an expression of it.

    `skip_first`: the function is a method that does not use its module.
    """

    locator: Locator | None
    digest: str
    expression: Expression | None
    text: str
    skip_first: bool = False

    def build(self) -> Callable[[Tensor], Tensor]:
        """The function. Raises UnpicklingError if the user's code is not found, or has changed."""
        outer = locate_function(self.locator, self.digest, f"the function of {self.text!r}")
        if self.expression is not None:
            return self.expression.build(read_source(undecorated(outer)))
        return functools.partial(outer, None) if self.skip_first else outer


class UserFunction(nn.Module):
    """A function of one tensor from the user's code.

    `text`: how the code writes it. `recipe`: how it is found again when the module is unpickled; None: the function
    itself is pickled.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], text: str, recipe: Recipe | None = None) -> None:
        super().__init__()
        self.function: Callable[[Tensor], Tensor] | None = function
        self.text = text
        self.recipe = recipe

    def forward(self, x: Tensor) -> Tensor:
        assert self.function is not None
        return self.function(x)

    def extra_repr(self) -> str:
        return self.text

    def __copy__(self) -> UserFunction:
        copied = UserFunction.__new__(UserFunction)
        copied.__dict__.update(vars(self))
        return copied

    def __deepcopy__(self, memo: Mapping[int, Any]) -> UserFunction:
        assert self.function is not None
        copied = UserFunction(self.function, self.text, self.recipe)
        copied.__dict__.update({k: copy.deepcopy(v, dict(memo)) for k, v in vars(self).items() if k.endswith("_hooks")})
        return copied.train(self.training)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if self.recipe is not None:
            if self.recipe.locator is None:
                raise pickle.PicklingError(f"{self.text!r} is part of a local function, which cannot be pickled")
            state["function"] = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self.function is None:
            assert self.recipe is not None
            self.function = self.recipe.build()


def user_function(function: Any, text: str, locator: Locator | None, *, skip_first: bool = False) -> UserFunction:
    """The module of a helper that is an activation as a whole. `skip_first`: a method that does not use its module."""
    recipe = Recipe(locator, code_digest(undecorated(function).__code__), None, text, skip_first)
    return UserFunction(functools.partial(function, None) if skip_first else function, text, recipe)
