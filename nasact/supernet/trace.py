"""One module's own forward as a torch.fx graph, its children left whole.

Tracing module by module (rather than the whole model) keeps every class, hook and untraceable neighbour as it is, and
tracing twice, in train and in eval mode, keeps what a forward does with `self.training`.
"""

from __future__ import annotations

import inspect
import types
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from nasact.supernet.originals import CALL_NAMES


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


@dataclass(frozen=True)
class Traced:
    """The graphs of a module's forward in train and in eval mode; the same object where both do the same."""

    train: fx.Graph
    eval: fx.Graph

    @property
    def graphs(self) -> tuple[fx.Graph, ...]:
        return (self.train,) if self.train is self.eval else (self.train, self.eval)


def _defaults(module: nn.Module) -> dict[str, Any]:
    # fx passes a proxy for every argument, and `if mask is None` would then silently take the other branch: arguments
    # with a plain default are traced at that default, and the traced forward refuses any other value.
    return {
        name: parameter.default
        for name, parameter in inspect.signature(module.forward).parameters.items()
        if parameter.default is None or isinstance(parameter.default, bool | int | float | str)
    }


def _graph(module: nn.Module, training: bool) -> fx.Graph:
    was = module.training
    module.training = training
    try:
        graph = _Tracer().trace(module, concrete_args=_defaults(module) or None)
    finally:
        module.training = was
    names = list(inspect.signature(module.forward).parameters)
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    for name, node in zip(names, placeholders, strict=False):
        if not str(node.target).startswith("*"):
            node.target = name  # fx renames specialised arguments; callers pass them by their own name
    return graph


def trace(module: nn.Module) -> Traced | str:
    """Trace `module.forward`; a string that says why, where it cannot be traced."""
    try:
        train, evaluation = _graph(module, True), _graph(module, False)
    except Exception as error:  # whatever a user's forward raises under proxies means: not traceable
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    same = train.python_code("self").src == evaluation.python_code("self").src
    return Traced(train, train) if same else Traced(train, evaluation)


def mentions_activation(function: object, owner: type | None = None, seen: set[object] | None = None) -> str | None:
    """The first activation named in a Python function's byte code, in the methods or in the functions it calls.

    For code that cannot be traced: a name is evidence enough to warn that something there was not reached.
    """
    seen = set() if seen is None else seen
    function = inspect.unwrap(function) if callable(function) else function
    code = getattr(function, "__code__", None)
    if code is None or code in seen:
        return None
    seen.add(code)
    codes = [code, *(constant for constant in code.co_consts if isinstance(constant, types.CodeType))]
    for name in (name for each in codes for name in each.co_names):
        if name in CALL_NAMES:
            return str(name)
        called = inspect.getattr_static(owner, name, None) if owner else None
        if called is None:
            called = getattr(function, "__globals__", {}).get(name)
        if isinstance(called, types.FunctionType) and not str(called.__module__).startswith("torch."):
            found = mentions_activation(called, owner, seen)
            if found:
                return found
    return None
