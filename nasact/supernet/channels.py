"""How many channels an activation sees, and in which dimension, read off the layers before it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.pooling import (
    _AdaptiveAvgPoolNd,
    _AdaptiveMaxPoolNd,
    _AvgPoolNd,
    _MaxPoolNd,
)

from nasact.supernet.originals import function_name, is_activation, method_name

_KEEPERS = (_DropoutNd, nn.Identity, _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd)
_KEEPING_CALLS = frozenset({"add", "iadd", "mul", "imul", "sub", "dropout", "max_pool2d", "avg_pool2d"})


@dataclass(frozen=True)
class Channels:
    """`count` channels in dimension `dim` of the input (1 after convolutions, -1 after linear layers)."""

    count: int
    dim: int


def after_module(module: nn.Module) -> Channels | None:
    """The channels that leave `module`, where its kind says so."""
    if isinstance(module, _ConvNd):
        return Channels(module.out_channels, 1)
    if isinstance(module, _NormBase):
        return Channels(module.num_features, 1)
    if isinstance(module, nn.GroupNorm):
        return Channels(module.num_channels, 1)
    if isinstance(module, nn.Linear):
        return Channels(module.out_features, -1)
    if type(module) is nn.LayerNorm:
        return Channels(module.normalized_shape[-1], -1)
    if isinstance(module, nn.Sequential):
        return before_child(module, len(module))
    return None


def _keeps_channels(module: nn.Module) -> bool:
    return is_activation(module) or isinstance(module, _KEEPERS)


def before_child(sequence: nn.Sequential, index: int) -> Channels | None:
    """The channels that enter child `index` of a Sequential, from the children before it."""
    for module in reversed(list(sequence)[:index]):
        if not _keeps_channels(module):
            return after_module(module)
    return None


def after_node(node: object, owner: nn.Module) -> Channels | None:
    """The channels of a node's value in the graph of `owner`'s forward."""
    if not isinstance(node, fx.Node):
        return None
    if node.op == "call_module":
        module = owner.get_submodule(str(node.target))
        if not _keeps_channels(module):
            return after_module(module)
    elif node.op == "call_function":
        name = getattr(node.target, "__name__", "")
        if function_name(node.target) is None and name not in _KEEPING_CALLS:
            return None
    elif node.op != "call_method" or method_name(str(node.target)) is None:
        return None
    found = (after_node(argument, owner) for argument in node.args)
    return next((channels for channels in found if channels is not None), None)
