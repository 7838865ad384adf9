"""Which modules, functions and methods of torch are activations, and which catalogue function each of them is.

A module or call with settings that no catalogue function has (a slope of 0.2, a trained PReLU) is named "original" and
is used unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasact.reserved_names import ORIGINAL

# class -> (catalogue name, the settings that the catalogue function has)
_MODULES: dict[type[nn.Module], tuple[str, Mapping[str, Any]]] = {
    nn.ReLU: ("relu", {}),
    nn.Tanh: ("tanh", {}),
    nn.Sigmoid: ("sigmoid", {}),
    nn.SiLU: ("silu", {}),
    nn.Softsign: ("softsign", {}),
    nn.Softplus: ("softplus", {"beta": 1.0, "threshold": 20.0}),
    nn.SELU: ("selu", {}),
    nn.Hardsigmoid: ("hard_sigmoid", {}),
    nn.ELU: ("elu", {"alpha": 1.0}),
    nn.CELU: ("celu", {"alpha": 1.0}),
    nn.LeakyReLU: ("leaky_relu", {"negative_slope": 0.01}),
    nn.Mish: ("mish", {}),
    nn.Hardswish: ("hard_swish", {}),
    nn.ReLU6: ("relu6", {}),
    nn.Hardtanh: ("hardtanh", {"min_val": -1.0, "max_val": 1.0}),
    nn.LogSigmoid: ("logsigmoid", {}),
    nn.Tanhshrink: ("tanhshrink", {}),
    nn.Softshrink: ("softshrink", {"lambd": 0.5}),
    nn.Hardshrink: ("hardshrink", {"lambd": 0.5}),
    nn.GELU: ("gelu", {"approximate": "none"}),
    nn.PReLU: (ORIGINAL, {}),
    nn.RReLU: (ORIGINAL, {}),
    nn.Threshold: (ORIGINAL, {}),
}

# name of a function in torch or torch.nn.functional, or of a tensor method -> (catalogue name, settings with defaults)
_CALLS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "relu": ("relu", {}),
    "tanh": ("tanh", {}),
    "sigmoid": ("sigmoid", {}),
    "silu": ("silu", {}),
    "softsign": ("softsign", {}),
    "softplus": ("softplus", {"beta": 1, "threshold": 20}),
    "selu": ("selu", {}),
    "hardsigmoid": ("hard_sigmoid", {}),
    "elu": ("elu", {"alpha": 1.0}),
    "celu": ("celu", {"alpha": 1.0}),
    "leaky_relu": ("leaky_relu", {"negative_slope": 0.01}),
    "mish": ("mish", {}),
    "hardswish": ("hard_swish", {}),
    "relu6": ("relu6", {}),
    "hardtanh": ("hardtanh", {"min_val": -1.0, "max_val": 1.0}),
    "logsigmoid": ("logsigmoid", {}),
    "tanhshrink": ("tanhshrink", {}),
    "softshrink": ("softshrink", {"lambd": 0.5}),
    "hardshrink": ("hardshrink", {"lambd": 0.5}),
    "gelu": ("gelu", {"approximate": "none"}),
    "threshold": (ORIGINAL, {"threshold": None, "value": None}),
}

REFUSED_CALLS: Mapping[str, str] = {
    "prelu": "F.prelu has trainable slopes of its own: use nn.PReLU",
    "rrelu": "F.rrelu draws its slopes at random: use nn.RReLU",
}
"""Functional activations that cannot be replaced, with the reason."""

CALL_NAMES = frozenset(_CALLS) | frozenset(f"{name}_" for name in _CALLS) | {*REFUSED_CALLS, "rrelu_", "expit"}
"""Names of functions and methods that are activations."""

CATALOGUE_NAMES = frozenset(name for name, _ in _CALLS.values()) - {ORIGINAL} | {"gelu_tanh"}
"""Catalogue names of the functions that torch has as activations."""

CLASS_NAMES = frozenset(kind.__name__ for kind in _MODULES)
"""Names of the classes of torch's activation modules."""


def _functions() -> dict[Callable[..., Any], str]:
    functions: dict[Callable[..., Any], str] = {torch.special.expit: "sigmoid"}
    for name in (*_CALLS, *REFUSED_CALLS):
        # torch._C._nn is private, but graphs may hold its functions, such as its silu, which no public module exports
        for module in (torch, F, Tensor, torch._C._nn):
            for spelling in (name, f"{name}_"):
                function = getattr(module, spelling, None)
                if callable(function):
                    functions[function] = name
    return functions


_FUNCTIONS = _functions()


class FunctionalActivation(nn.Module):
    """A functional activation with its settings as a module, for a call such as `F.elu(x, alpha=0.5)`."""

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.name = name
        self.settings = dict(settings)

    def forward(self, x: Tensor) -> Tensor:
        function = getattr(F, self.name, None) or getattr(torch, self.name)
        result: Tensor = function(x, **self.settings)
        return result

    def extra_repr(self) -> str:
        return ", ".join([self.name, *(f"{key}={value}" for key, value in self.settings.items())])


def is_activation(module: nn.Module) -> bool:
    """Whether `module` is one of torch's elementwise activations (a subclass that overrides forward is not)."""
    kinds = (kind for kind in _MODULES if isinstance(module, kind))
    return any(type(module).forward is kind.forward for kind in kinds)


def out_of_place(module: nn.Module) -> nn.Module:
    """`module` or, if it works in place, a shallow copy that shares its parameters and does not overwrite its input."""
    if not getattr(module, "inplace", False):
        return module
    copied = copy(module)
    copied.__dict__["inplace"] = False
    return copied


def catalogue_name_of_module(module: nn.Module) -> str:
    """The catalogue name of an activation module, or "original"."""
    name, settings = next(_MODULES[kind] for kind in type(module).__mro__ if kind in _MODULES)
    if isinstance(module, nn.GELU) and module.approximate == "tanh":
        return "gelu_tanh"
    return name if all(getattr(module, key) == value for key, value in settings.items()) else ORIGINAL


def activation_of_function(target: object) -> str | None:
    """The torch name of the activation that a called function computes (`F.relu` -> "relu"); None if it is none."""
    if type(target).__name__ in ("OpOverload", "OpOverloadPacket"):  # torch.ops.aten.relu, with or without .default
        name = str(target).split(".")[1].removesuffix("_")
        return name if name in _CALLS or name in REFUSED_CALLS else None
    try:
        return _FUNCTIONS.get(target)  # type: ignore[call-overload, no-any-return]
    except TypeError:
        return None


def activation_of_method(target: str) -> str | None:
    """The torch name of the activation that a tensor method computes (`"relu_"` -> "relu"); None if it is none."""
    name = target.removesuffix("_")
    return name if (name in _CALLS or name in REFUSED_CALLS) and hasattr(Tensor, target) else None


def is_activation_class(kind: object) -> bool:
    """Whether `kind` is a class of torch's activation modules."""
    return isinstance(kind, type) and kind in _MODULES


def call_settings(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a call, by name; `args` are its positional arguments without the input."""
    settings = dict(zip(_CALLS[name][1], args, strict=False))
    settings.update({key: value for key, value in kwargs.items() if key not in ("input", "inplace")})
    return settings


def call_works_in_place(name: str, spelling: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call overwrites its input. `spelling`: the name it is called by; `args`: those after the input."""
    position = len(_CALLS[name][1])  # torch's functions take `inplace` after their settings
    return spelling.endswith("_") or bool(kwargs.get("inplace", args[position] if len(args) > position else False))


def catalogue_name_of_call(name: str, settings: Mapping[str, Any]) -> str:
    """The catalogue name of a functional call, or "original"."""
    if name == "gelu" and settings.get("approximate") == "tanh":
        return "gelu_tanh"
    catalogue, defaults = _CALLS[name]
    return catalogue if all(defaults.get(key) == value for key, value in settings.items()) else ORIGINAL
