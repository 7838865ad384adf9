"""Image shapes, as the functions that build models need them: the check of an input shape, and sizes after layers.

Must not know any model.
"""

from __future__ import annotations

from nasact.errors import ModelError

Shape = tuple[int, ...]


def require_image_shape(model: str, input_shape: Shape, *, min_side: int = 1, why: str = "") -> tuple[int, int, int]:
    """Return (channels, height, width); raise ModelError unless height and width are at least `min_side`.

    `why` explains the minimum in the message.
    """
    if len(input_shape) != 3:
        raise ModelError(
            f"model {model!r}: needs images of shape (channels, height, width), but the data has {tuple(input_shape)}"
        )
    channels, height, width = input_shape
    if min(height, width) < min_side:
        raise ModelError(
            f"model {model!r}: needs images of at least {min_side} x {min_side}{why}, "
            f"but the data has {height} x {width}"
        )
    return channels, height, width


def side_after(side: int, *layers: str) -> int:
    """The side of an image after unpadded convolutions (`c3`: 3 x 3) and poolings (`p2`: 2 x 2)."""
    for layer in layers:
        extent = int(layer[1:])
        side = side - extent + 1 if layer[0] == "c" else side // extent
    return side
