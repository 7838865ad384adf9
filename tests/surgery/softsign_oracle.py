"""An oracle of surgery that works by interception: softsign replaces torch's activations while a model runs."""

from __future__ import annotations

from typing import Any

from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_INTERCEPTED = frozenset(
    [
        *("relu", "tanh", "sigmoid", "silu", "softplus", "selu", "hardsigmoid", "elu", "celu", "leaky_relu", "mish"),
        *("hardswish", "relu6", "hardtanh", "logsigmoid", "gelu", "tanhshrink", "softshrink", "hardshrink"),
        *("special_expit", "log_sigmoid"),
    ]
)


_SPELLINGS = {"sigmoid": ("sigmoid", "special_expit"), "hard_sigmoid": ("hardsigmoid",)}


class SoftsignEverywhere(TorchFunctionMode):
    """Replaces torch's activation functions, except those with a `kept` name, by softsign."""

    def __init__(self, kept: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.replaced = _INTERCEPTED - {spelling for name in kept for spelling in _SPELLINGS.get(name, (name,))}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name.removesuffix("_") not in self.replaced:
            return func(*args, **kwargs)
        x = args[0] if args else kwargs["input"]
        if name.endswith("_") or kwargs.get("inplace"):
            return x.copy_(F.softsign(x.clone()))
        return F.softsign(x)
