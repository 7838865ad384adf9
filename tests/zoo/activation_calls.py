"""An oracle of its own: which activation functions a model calls while it runs, and inside which module.

It shares no code and no table with nasact, so that both would have to miss the same call.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

ACTIVATION = re.compile(
    r"(relu|elu|celu|selu|hardtanh|leaky_relu|threshold|rrelu|sigmoid|tanh|erf|softplus)_?"
    r"|relu6|prelu|gelu|silu|mish|hardswish|hardsigmoid|logsigmoid|softsign|tanhshrink|softshrink|hardshrink"
    r"|expit|special_(expit|erf)|(lstm|gru|rnn_tanh|rnn_relu)(_cell)?"
)
"""The names of functions and methods of torch that are activations, or that compute some inside."""
_TORCH = str(Path(torch.__file__).parent)


@dataclass(frozen=True)
class ActivationCall:
    """One call: the function, the innermost module of the model that was running, and the caller's line."""

    function: str
    module: str
    place: str


@dataclass(eq=False)
class CallLog(TorchFunctionMode):
    """Records the activation calls of a model, except those while `hidden` is above 0."""

    names: Mapping[int, str]
    calls: list[ActivationCall] = field(default_factory=list)
    hidden: int = 0
    running: list[str] = field(default_factory=lambda: [""])

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not self.hidden and _is_activation(func, args, kwargs):
            self.calls.append(ActivationCall(func.__name__, self.running[-1], _caller()))
        return func(*args, **kwargs)

    def enter(self, module: nn.Module, args: Any) -> None:
        """A forward pre-hook; a module that is no part of the model counts as the one that calls it."""
        self.running.append(self.names.get(id(module), self.running[-1]))

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """A forward hook."""
        self.running.pop()


def _is_activation(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    name = getattr(func, "__name__", "")
    if ACTIVATION.fullmatch(name):
        return True
    if name in ("clamp", "clamp_", "clip", "clip_", "clamp_min", "clamp_min_"):
        low = args[1] if len(args) > 1 else kwargs.get("min")
        high = args[2] if len(args) > 2 else kwargs.get("max")
        is_float = isinstance(args[0], Tensor) and args[0].is_floating_point() and args[0].dim() > 0
        return is_float and high is None and isinstance(low, int | float) and low == 0
    return False


def _caller() -> str:
    frame = sys._getframe(2)
    while frame.f_back and frame.f_code.co_filename.startswith((_TORCH, __file__)):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"


@contextmanager
def log_activation_calls(model: nn.Module) -> Iterator[CallLog]:
    """Record the activation calls of the passes of `model` inside the block."""
    log = CallLog({id(module): name for name, module in model.named_modules()})
    hooks = register_module_forward_pre_hook(log.enter), register_module_forward_hook(log.leave, always_call=True)
    try:
        with log:
            yield log
    finally:
        for hook in hooks:
            hook.remove()


class Marker(nn.Module):
    """Computes a site's own function, hidden from the log; counts its calls."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.original = original
        self.log: list[CallLog] = []
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        for log in self.log:
            log.hidden += 1
        try:
            result: Tensor = self.original(x)
        finally:
            for log in self.log:
                log.hidden -= 1
        return result
