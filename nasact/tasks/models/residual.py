"""A compact residual network (ResNet) for small images, with BatchNorm and functional activations."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from nasact.errors import ModelError
from nasact.tasks.models.base import ModelRecord, register_model
from nasact.tasks.models.image_shapes import Shape, require_image_shape
from nasact.tasks.models.option_types import Positive


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with a shortcut around them; a 1 x 1 convolution on the shortcut if the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


class ResidualNet(nn.Module):
    """A stem, three stages of `blocks` blocks at full, half and quarter resolution, the mean over the image, a head."""

    def __init__(self, channels: int, classes: int, blocks: int, base: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, base, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(base)
        stages: list[nn.Module] = []
        inputs = base
        for stage in range(3):
            outputs = base * 2**stage
            for block in range(blocks):
                stages.append(ResidualBlock(inputs, outputs, stride=2 if stage > 0 and block == 0 else 1))
                inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(F.relu(self.norm(self.stem(x))))
        out: Tensor = self.head(x.mean(dim=(2, 3)))
        return out


def residual(
    *,
    input_shape: Shape,
    classes: int,
    depth: Annotated[int, Field(ge=8)] = 8,
    width: Positive = 1.0,
) -> nn.Module:
    """`depth` layers with weights (8, 14, 20, ...) of 16, 32 and 64 filters times `width`; the thesis uses depth 20."""
    channels, _, _ = require_image_shape("residual", input_shape)
    if (depth - 2) % 6 != 0:
        near = 8 + 6 * max(0, round((depth - 8) / 6))
        raise ModelError(
            f"model 'residual': depth must be one of 8, 14, 20, ..., but got {depth}. Did you mean {near}?"
        )
    return ResidualNet(channels, classes, (depth - 2) // 6, max(1, round(16 * width)))


register_model(
    ModelRecord(
        name="residual",
        build=residual,
        description="compact ResNet of depth 8, 14, 20, ... with BatchNorm, functional calls",
        source="arXiv:1512.03385; thesis on trainable activation functions, table 12",
        inputs="images of any size",
    )
)
