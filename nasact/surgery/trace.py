"""Traces one module's forward into a torch.fx graph, in which calls of its children stay single nodes.

Tracing module by module (instead of the whole model) leaves classes, hooks and untraceable neighbours unchanged.
Tracing twice, in train and in eval mode, keeps the effect of `self.training`.
"""

from __future__ import annotations

import inspect
import types
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from nasact.surgery.torch_activations import CALL_NAMES


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


@dataclass(frozen=True)
class TracedForward:
    """The graphs of a module's forward in train and in eval mode; the same object if both modes do the same."""

    train: fx.Graph
    eval: fx.Graph

    @property
    def graphs(self) -> tuple[fx.Graph, ...]:
        """The different graphs: one or two."""
        return (self.train,) if self.train is self.eval else (self.train, self.eval)


def _defaults(module: nn.Module) -> dict[str, Any]:
    """The arguments of the forward with a plain default, at that default; the traced forward refuses other values."""
    # without this, fx passes a proxy for every argument, and `if mask is None` silently takes the other branch
    return {
        name: parameter.default
        for name, parameter in inspect.signature(module.forward).parameters.items()
        if parameter.default is None or isinstance(parameter.default, bool | int | float | str)
    }


def _graph(module: nn.Module, training: bool) -> fx.Graph:
    training_before = module.training
    module.training = training
    try:
        graph = _Tracer().trace(module, concrete_args=_defaults(module) or None)
    finally:
        module.training = training_before
    names = list(inspect.signature(module.forward).parameters)
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    for name, node in zip(names, placeholders, strict=False):
        if not str(node.target).startswith("*"):
            node.target = name  # fx renames specialised arguments; callers use the names of the signature
    return graph


def trace(module: nn.Module) -> TracedForward | str:
    """Trace `module.forward`; return the reason as a string if it cannot be traced."""
    try:
        train, evaluation = _graph(module, True), _graph(module, False)
    except Exception as error:  # a user's forward may raise anything when it gets proxies
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    same = train.python_code("self").src == evaluation.python_code("self").src
    return TracedForward(train, train) if same else TracedForward(train, evaluation)


def find_activation_name(function: object, owner: type | None = None, visited: set[object] | None = None) -> str | None:
    """The first name of an activation in the byte code of a Python function or of what it calls; None if there is none.

    `owner`: the class whose methods the function may call. For code that cannot be traced: a name is enough evidence to
    warn that the code may apply an activation.
    """
    visited = set() if visited is None else visited
    function = inspect.unwrap(function) if callable(function) else function
    code = getattr(function, "__code__", None)
    if code is None or code in visited:
        return None
    visited.add(code)
    codes = [code, *(constant for constant in code.co_consts if isinstance(constant, types.CodeType))]
    for name in (name for each in codes for name in each.co_names):
        if name in CALL_NAMES:
            return str(name)
        called = inspect.getattr_static(owner, name, None) if owner else None
        if called is None:
            called = getattr(function, "__globals__", {}).get(name)
        if isinstance(called, types.FunctionType) and not str(called.__module__).startswith("torch."):
            found = find_activation_name(called, owner, visited)
            if found:
                return found
    return None
