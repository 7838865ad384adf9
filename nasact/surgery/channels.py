"""The number of channels of an activation's input, and their dimension, inferred from the layers before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

# The private base classes of torch's layers: public ones for "any convolution", "any pooling" ... do not exist, and a
# list of the public subclasses would miss those of a user or of torch.ao.
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.pooling import (
    _AdaptiveAvgPoolNd,
    _AdaptiveMaxPoolNd,
    _AvgPoolNd,
    _MaxPoolNd,
)

from nasact.surgery.torch_activations import is_activation

_CHANNEL_PRESERVING = (_DropoutNd, nn.Identity, _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd)
_LAYER_NORMS = (nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Channels:
    """`count` channels in dimension `dim` of a tensor (1 after convolutions, -1 after linear layers)."""

    count: int
    dim: int


def channels_after_module(module: nn.Module) -> Channels | None:
    """The channels of the output of `module`; None if its class does not determine them."""
    if isinstance(module, _ConvNd):
        return Channels(module.out_channels, 1)
    if isinstance(module, _NormBase):
        return Channels(module.num_features, 1)
    if isinstance(module, nn.GroupNorm):
        return Channels(module.num_channels, 1)
    if isinstance(module, nn.Linear):
        return Channels(module.out_features, -1)
    if isinstance(module, _LAYER_NORMS) and type(module) in _LAYER_NORMS:
        return _channels_after_layer_norm(module.normalized_shape)
    if isinstance(module, nn.Sequential):
        return channels_before_child(module, len(module))
    return None


def _channels_after_layer_norm(shape: Sequence[int]) -> Channels | None:
    """The channels after a normalisation over the last `len(shape)` dimensions, if no layer before it tells them.

    (C, H, W) are images, (features,) sequences or vectors; two entries may be (C, length), (H, W) or (length, C).
    """
    if len(shape) == 1:
        return Channels(shape[0], -1)
    return Channels(shape[0], 1) if len(shape) > 2 else None


def _preserves_channels(module: nn.Module) -> bool:
    """Whether the channels after the module are those before it, if these are known."""
    several_dimensions = isinstance(module, _LAYER_NORMS) and len(module.normalized_shape) > 1
    return is_activation(module) or isinstance(module, _CHANNEL_PRESERVING) or several_dimensions


def channels_after(module: nn.Module, before: Channels | None) -> Channels | None:
    """The channels of the output of `module` for an input with the channels `before`; None if they are unknown."""
    return (before if _preserves_channels(module) else None) or channels_after_module(module)


def channels_before_child(sequence: nn.Sequential, index: int) -> Channels | None:
    """The channels of the input of child `index` of a Sequential; None if the children before it leave them open."""
    if not index:
        return None
    module = list(sequence)[index - 1]
    before = channels_before_child(sequence, index - 1) if _preserves_channels(module) else None
    return before or channels_after_module(module)
