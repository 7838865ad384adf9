"""What a user's function returned, in a few words for a message."""

from __future__ import annotations

import numpy as np
from torch import Tensor

LONGEST_TEXT = 60
"""Characters of a value that a message still quotes."""


def describe(value: object) -> str:
    """`a tuple of 2`, `Tensor of shape (3, 4)`, `str 'test'`, `None`, or the type."""
    if value is None:
        return "None"
    if isinstance(value, tuple | list | dict):
        return f"a {type(value).__name__} of {len(value)}"
    kind = type(value).__name__
    if isinstance(value, Tensor | np.ndarray):
        return f"{kind} of shape {tuple(value.shape)}"
    if isinstance(value, str | int | float) and len(repr(value)) < LONGEST_TEXT:
        return f"{kind} {value!r}"
    return kind
