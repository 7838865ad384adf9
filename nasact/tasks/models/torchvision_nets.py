"""torchvision's networks, untrained, for any number of classes and input channels.

torchvision is imported when a network is built, because its import takes seconds.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from nasact.errors import ModelError
from nasact.tasks.models.base import ModelRecord, register_model
from nasact.tasks.models.image_shapes import Shape, require_image_shape
from nasact.tasks.models.option_types import Fraction


def resnet18(*, input_shape: Shape, classes: int) -> nn.Module:
    """ResNet-18 (He et al. 2016)."""
    channels, _, _ = require_image_shape("resnet18", input_shape)
    return _build("resnet18", channels, classes)


register_model(
    ModelRecord(
        name="resnet18",
        build=resnet18,
        description="torchvision's, untrained",
        source="arXiv:1512.03385",
        inputs="images of any size",
    )
)


def mobilenet_v3_small(*, input_shape: Shape, classes: int, dropout: Fraction = 0.2) -> nn.Module:
    """MobileNetV3-Small (Howard et al. 2019)."""
    channels, _, _ = require_image_shape("mobilenet_v3_small", input_shape)
    return _build("mobilenet_v3_small", channels, classes, dropout=dropout)


register_model(
    ModelRecord(
        name="mobilenet_v3_small",
        build=mobilenet_v3_small,
        description="torchvision's, untrained",
        source="arXiv:1905.02244",
        inputs="images of any size",
        activation="relu, hard_swish, hard_sigmoid",
    )
)


def vit_b_16(*, input_shape: Shape, classes: int, dropout: Fraction = 0.0) -> nn.Module:
    """ViT-B/16 (Dosovitskiy et al. 2021), with position embeddings for the image size of the data."""
    channels, height, width = require_image_shape("vit_b_16", input_shape)
    if height != width or height % 16:
        raise ModelError(
            f"model 'vit_b_16': needs square images with sides of 16, 32, 48, ..., but the data has {height} x {width}"
        )
    return _build("vit_b_16", channels, classes, image_size=height, dropout=dropout)


register_model(
    ModelRecord(
        name="vit_b_16",
        build=vit_b_16,
        description="torchvision's, untrained, 86 million parameters",
        source="arXiv:2010.11929",
        inputs="square images with sides of 16, 32, 48, ...",
        activation="gelu",
    )
)


def convnext_tiny(*, input_shape: Shape, classes: int, stochastic_depth_prob: Fraction = 0.1) -> nn.Module:
    """ConvNeXt-T (Liu et al. 2022)."""
    channels, _, _ = require_image_shape("convnext_tiny", input_shape, min_side=32, why=" (it halves them five times)")
    return _build("convnext_tiny", channels, classes, stochastic_depth_prob=stochastic_depth_prob)


register_model(
    ModelRecord(
        name="convnext_tiny",
        build=convnext_tiny,
        description="torchvision's, untrained, 28 million parameters",
        source="arXiv:2201.03545",
        inputs="images from 32 x 32",
        activation="gelu",
    )
)


def _build(name: str, channels: int, classes: int, **options: Any) -> nn.Module:
    from torchvision import models

    network: nn.Module = getattr(models, name)(weights=None, num_classes=classes, **options)
    return network if channels == 3 else _replace_stem(network, channels)


def _replace_stem(network: nn.Module, channels: int) -> nn.Module:
    """Replace the first convolution, the only one with 3 input channels, by one with `channels` input channels."""
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
    # setattr also replaces an entry of a Sequential at the same position
    setattr(network.get_submodule(parent), leaf, stem)
    return network
