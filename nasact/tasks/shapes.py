"""Questions about input shapes that model factories share: is it an image, and is it large enough?

Must not know any model.
"""

from __future__ import annotations

from nasact.errors import ModelError

Shape = tuple[int, ...]


def image_shape(name: str, input_shape: Shape, *, least: int = 1, why: str = "") -> tuple[int, int, int]:
    """(channels, height, width); ModelError unless both sides are at least `least`."""
    if len(input_shape) != 3:
        raise ModelError(
            f"model {name!r}: needs images of shape (channels, height, width), but the data has {tuple(input_shape)}"
        )
    channels, height, width = input_shape
    if min(height, width) < least:
        raise ModelError(
            f"model {name!r}: needs images of at least {least} x {least}{why}, but the data has {height} x {width}"
        )
    return channels, height, width


def after(side: int, *steps: str) -> int:
    """The side of an image after unpadded convolutions (`c3`: 3 x 3) and poolings (`p2`: 2 x 2)."""
    for step in steps:
        extent = int(step[1:])
        side = side - extent + 1 if step[0] == "c" else side // extent
    return side
