"""The plain networks of the papers: layers one after the other, relu in between.

Written in both styles on purpose, activations as modules and as functional calls: surgery has to find either.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from nasact.errors import ModelError
from nasact.tasks.shapes import Shape, after, image_shape

Units = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Width = Annotated[float, Field(gt=0)]


_KINDS = {nn.Conv2d: "conv", nn.ReLU: "act", nn.MaxPool2d: "pool", nn.Linear: "fc", nn.Dropout: "dropout"}


def _named(*layers: nn.Module) -> nn.Sequential:
    """A Sequential whose layers are called conv1, act1, ...: sites are named after them in every table and plot."""
    counts: Counter[str] = Counter()
    named: dict[str, nn.Module] = {}
    for layer in layers:
        kind = _KINDS.get(type(layer), type(layer).__name__.lower())
        counts[kind] += 1
        named[f"{kind}{counts[kind]}"] = layer
    return nn.Sequential(OrderedDict(named))


def mlp(*, input_shape: Shape, classes: int, hidden: Sequence[Units] = (64, 64), dropout: Fraction = 0.0) -> nn.Module:
    """Dense layers of `hidden` units, each followed by relu (and dropout where it is above 0)."""
    if not hidden:
        raise ModelError("model 'mlp': hidden must name at least one layer, but got []")
    units = 1
    for side in input_shape:
        units *= side
    layers: list[nn.Module] = [nn.Flatten()]
    for width in hidden:
        layers += [nn.Linear(units, width), nn.ReLU()]
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
        units = width
    return _named(*layers, nn.Linear(units, classes))


def small_cnn(*, input_shape: Shape, classes: int, width: Width = 1.0) -> nn.Module:
    """Three convolutions and a dense layer, without dropout."""
    return _thesis_cnn("small_cnn", input_shape, classes, width, None)


def small_cnn_regularised(
    *, input_shape: Shape, classes: int, width: Width = 1.0, dropout: Fraction = 0.5
) -> nn.Module:
    """The same with dropout after the second pooling and before the output."""
    return _thesis_cnn("small_cnn_regularised", input_shape, classes, width, dropout)


def _thesis_cnn(name: str, input_shape: Shape, classes: int, width: float, dropout: float | None) -> nn.Module:
    # the smallest side s with after(s, c3, p2, c3, p2, c3) >= 1
    channels, *sides = image_shape(name, input_shape, least=18, why=" (three 3 x 3 convolutions, two poolings)")
    few, many = max(1, round(32 * width)), max(1, round(64 * width))
    height, breadth = (after(side, "c3", "p2", "c3", "p2", "c3") for side in sides)
    layers: list[nn.Module] = [nn.Conv2d(channels, few, 3), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(few, many, 3), nn.ReLU(), nn.MaxPool2d(2)]
    if dropout is not None:
        layers.append(nn.Dropout(dropout))
    layers += [nn.Conv2d(many, many, 3), nn.ReLU(), nn.Flatten()]
    layers += [nn.Linear(many * height * breadth, many), nn.ReLU()]
    if dropout is not None:
        layers.append(nn.Dropout(dropout))
    return _named(*layers, nn.Linear(many, classes))


def lenet5(*, input_shape: Shape, classes: int) -> nn.Module:
    """20 and 50 filters of 5 x 5, 500 units: 431k parameters on 28 x 28, 657k on 3 x 32 x 32."""
    channels, *sides = image_shape("lenet5", input_shape, least=16, why=" (two 5 x 5 convolutions, two poolings)")
    height, breadth = (after(side, "c5", "p2", "c5", "p2") for side in sides)
    return _named(
        nn.Conv2d(channels, 20, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(50 * height * breadth, 500),
        nn.ReLU(),
        nn.Linear(500, classes),
    )


class BansalCNN(nn.Module):
    """Two convolutions and two dense layers with three functional activations between them."""

    def __init__(self, channels: int, height: int, breadth: int, classes: int, width: float) -> None:
        super().__init__()
        few, many, units = (max(1, round(size * width)) for size in (16, 32, 128))
        self.conv1 = nn.Conv2d(channels, few, 3, padding=1)
        self.conv2 = nn.Conv2d(few, many, 3, padding=1)
        self.dense1 = nn.Linear(many * (height // 4) * (breadth // 4), units)
        self.dense2 = nn.Linear(units, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.dense1(x.flatten(1)))
        out: Tensor = self.dense2(x)
        return out


def bansal_cnn(*, input_shape: Shape, classes: int, width: Width = 1.0) -> nn.Module:
    """The paper's layout; its sizes are not published, so 16 and 32 filters and 128 units (times `width`)."""
    return BansalCNN(*image_shape("bansal_cnn", input_shape, least=4, why=" (two poolings)"), classes, width)
