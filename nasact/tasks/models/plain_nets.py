"""Plain networks from papers: a sequence of layers with relu between them, no shortcuts.

Both styles occur on purpose, activations as modules and as functional calls, because surgery must find both.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from nasact.errors import ModelError
from nasact.tasks.models.base import ModelRecord, register_model
from nasact.tasks.models.image_shapes import Shape, require_image_shape, side_after
from nasact.tasks.models.option_types import Count, Fraction, Positive

THESIS = "thesis on trainable activation functions"

_LAYER_NAMES = {nn.Conv2d: "conv", nn.ReLU: "act", nn.MaxPool2d: "pool", nn.Linear: "fc", nn.Dropout: "dropout"}


def _named(*layers: nn.Module) -> nn.Sequential:
    """A Sequential with layers named conv1, act1, ...; tables and plots show these names as the names of sites."""
    counts: Counter[str] = Counter()
    named: dict[str, nn.Module] = {}
    for layer in layers:
        kind = _LAYER_NAMES.get(type(layer), type(layer).__name__.lower())
        counts[kind] += 1
        named[f"{kind}{counts[kind]}"] = layer
    return nn.Sequential(OrderedDict(named))


def mlp(*, input_shape: Shape, classes: int, hidden: Sequence[Count] = (64, 64), dropout: Fraction = 0.0) -> nn.Module:
    """Dense layers of `hidden` units, each followed by relu (and by dropout if its rate is above 0)."""
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


register_model(
    ModelRecord(
        name="mlp",
        build=mlp,
        description="dense layers",
        source="standard",
        inputs="any shape",
    )
)


def small_cnn(*, input_shape: Shape, classes: int, width: Positive = 1.0) -> nn.Module:
    """Three convolutions (32, 64, 64 filters) and a dense layer (64 units), all times `width`; no dropout."""
    return _thesis_cnn("small_cnn", input_shape, classes, width, None)


register_model(
    ModelRecord(
        name="small_cnn",
        build=small_cnn,
        description="convolutions 32, 64, 64 and a dense layer of 64",
        source=f"{THESIS}, table 1",
        inputs="images from 18 x 18",
    )
)


def small_cnn_regularised(
    *, input_shape: Shape, classes: int, width: Positive = 1.0, dropout: Fraction = 0.5
) -> nn.Module:
    """`small_cnn` with dropout after the second pooling and before the output layer."""
    return _thesis_cnn("small_cnn_regularised", input_shape, classes, width, dropout)


register_model(
    ModelRecord(
        name="small_cnn_regularised",
        build=small_cnn_regularised,
        description="small_cnn with dropout (its rate is not published: 0.5)",
        source=f"{THESIS}, table 2",
        inputs="images from 18 x 18",
    )
)


def _thesis_cnn(name: str, input_shape: Shape, classes: int, width: float, dropout: float | None) -> nn.Module:
    # the smallest side s with side_after(s, c3, p2, c3, p2, c3) >= 1
    channels, *sides = require_image_shape(
        name, input_shape, min_side=18, why=" (three 3 x 3 convolutions, two poolings)"
    )
    few, many = max(1, round(32 * width)), max(1, round(64 * width))
    height, breadth = (side_after(side, "c3", "p2", "c3", "p2", "c3") for side in sides)
    layers: list[nn.Module] = [nn.Conv2d(channels, few, 3), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(few, many, 3), nn.ReLU(), nn.MaxPool2d(2)]
    if dropout is not None:
        layers.append(nn.Dropout(dropout))
    layers += [nn.Conv2d(many, many, 3), nn.ReLU(), nn.Flatten()]
    layers += [nn.Linear(many * height * breadth, many), nn.ReLU()]
    if dropout is not None:
        layers.append(nn.Dropout(dropout))
    return _named(*layers, nn.Linear(many, classes))


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


def bansal_cnn(*, input_shape: Shape, classes: int, width: Positive = 1.0) -> nn.Module:
    """The paper's layers. Their sizes are not published; here: 16 and 32 filters and 128 units, times `width`."""
    return BansalCNN(*require_image_shape("bansal_cnn", input_shape, min_side=4, why=" (two poolings)"), classes, width)


register_model(
    ModelRecord(
        name="bansal_cnn",
        build=bansal_cnn,
        description="two convolutions, two dense layers, functional calls",
        source="Bansal 2022, Activation Functions: Dive into an optimal activation function",
        inputs="images from 4 x 4",
    )
)


def lenet5(*, input_shape: Shape, classes: int) -> nn.Module:
    """20 and 50 filters of 5 x 5, 500 units: 431k parameters on 28 x 28, 657k on 3 x 32 x 32."""
    channels, *sides = require_image_shape(
        "lenet5", input_shape, min_side=16, why=" (two 5 x 5 convolutions, two poolings)"
    )
    height, breadth = (side_after(side, "c5", "p2", "c5", "p2") for side in sides)
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


register_model(
    ModelRecord(
        name="lenet5",
        build=lenet5,
        description="two 5 x 5 convolutions (20, 50) and a dense layer of 500",
        source="Manessi and Rozza 2018, Learning combinations of activation functions",
        inputs="images from 16 x 16",
    )
)
