"""torchvision's networks, untrained, for any number of classes and channels.

torchvision takes seconds to import, so it is imported by the factories and not before.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from torch import nn

from nasact.errors import ModelError
from nasact.tasks.shapes import Shape, image_shape

Fraction = Annotated[float, Field(ge=0, lt=1)]


def _build(name: str, channels: int, classes: int, **options: Any) -> nn.Module:
    from torchvision import models

    network: nn.Module = getattr(models, name)(weights=None, num_classes=classes, **options)
    return network if channels == 3 else _with_channels(network, channels)


def _with_channels(network: nn.Module, channels: int) -> nn.Module:
    """The network with its first convolution (the only one on 3 channels) made anew for `channels`."""
    name, first = next((name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
    stem = nn.Conv2d(
        channels,
        first.out_channels,
        (first.kernel_size[0], first.kernel_size[1]),
        stride=(first.stride[0], first.stride[1]),
        padding=first.padding if isinstance(first.padding, str) else (first.padding[0], first.padding[1]),
        bias=first.bias is not None,
    )
    parent, _, leaf = name.rpartition(".")
    # setattr rather than an index: it puts the new module in the same place of a Sequential too
    setattr(network.get_submodule(parent), leaf, stem)
    return network


def resnet18(*, input_shape: Shape, classes: int) -> nn.Module:
    channels, _, _ = image_shape("resnet18", input_shape)
    return _build("resnet18", channels, classes)


def mobilenet_v3_small(*, input_shape: Shape, classes: int, dropout: Fraction = 0.2) -> nn.Module:
    channels, _, _ = image_shape("mobilenet_v3_small", input_shape)
    return _build("mobilenet_v3_small", channels, classes, dropout=dropout)


def vit_b_16(*, input_shape: Shape, classes: int, dropout: Fraction = 0.0) -> nn.Module:
    channels, height, width = image_shape("vit_b_16", input_shape)
    if height != width or height % 16:
        raise ModelError(
            f"model 'vit_b_16': needs square images with sides of 16, 32, 48, ..., but the data has {height} x {width}"
        )
    return _build("vit_b_16", channels, classes, image_size=height, dropout=dropout)


def convnext_tiny(*, input_shape: Shape, classes: int, stochastic_depth_prob: Fraction = 0.1) -> nn.Module:
    channels, _, _ = image_shape("convnext_tiny", input_shape, least=32, why=" (it halves them five times)")
    return _build("convnext_tiny", channels, classes, stochastic_depth_prob=stochastic_depth_prob)
