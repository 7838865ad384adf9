"""Recognises relu and leaky relu in calls of general functions: clamp(min=0), maximum(x, 0), where(x > 0, x, 0).

By the arguments where they decide, else by the values of the call's result. Knows torch only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nasact.surgery.data_flow import Call, is_zero, tensors_in

_CLAMPS = frozenset(("clamp", "clip", "clamp_min"))
_MAXIMA = frozenset(("maximum", "max", "fmax"))
_BY_VALUE = _MAXIMA | {"where", "masked_fill", "setitem", "mul", "multiply"}
_FEWEST_VALUES = 8  # a random mask of this many values looks like the one of relu in one of 256 calls


class ReluSpelling:
    """A call that may compute relu or leaky relu. It is made before the call, which may overwrite its input."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.inputs: list[Tensor] = []
        if call.name in _BY_VALUE:
            floating = [each for each in tensors_in((call.args, call.kwargs)) if each.is_floating_point()]
            self.inputs = [each.detach().clone() if call.in_place else each for each in floating]

    def name(self, result: Any) -> str | None:
        """ "relu", "relu6", "leaky_relu", or None if the call computes none of them; `result`: what it returned."""
        if self.call.name in _CLAMPS:
            return self._clamp_name()
        if self.call.name == "setitem":
            result = self.call.args[0]
        if not isinstance(result, Tensor) or not result.is_floating_point():
            return None
        if self.call.name in _MAXIMA and any(is_zero(each) for each in self.inputs):
            return "relu"
        try:
            names = (_name_by_values(each, result) for each in self.inputs if each.shape == result.shape)
            return next((name for name in names if name is not None), None)
        except (RuntimeError, NotImplementedError):  # values that cannot be read: meta tensors, transforms
            return None

    def _clamp_name(self) -> str | None:
        x = self.call.argument(0, "input", "self")
        low = self.call.argument(1, "min")
        high = None if self.call.name == "clamp_min" else self.call.argument(2, "max")
        if not isinstance(x, Tensor) or not x.is_floating_point() or not _is_zero_bound(low):
            return None
        if high is None:
            return "relu"
        return "relu6" if not isinstance(high, Tensor) and high == 6 else None


def _is_zero_bound(value: object) -> bool:
    return is_zero(value) if isinstance(value, Tensor) else isinstance(value, int | float) and value == 0


def _name_by_values(x: Tensor, result: Tensor) -> str | None:
    """The function that gives `result` for `x`, where `x` has values of both signs."""
    negative, positive = x < 0, x > 0
    count = int(negative.sum()), int(positive.sum())
    if min(count) == 0 or sum(count) < _FEWEST_VALUES or not torch.equal(result[positive], x[positive]):
        return None
    slopes = (result[negative] / x[negative]).double()
    slope = float(slopes.mean())
    if not float((slopes - slope).abs().max()) < 1e-2 * max(abs(slope), 1e-6):
        return None
    if abs(slope) < 1e-6:
        return "relu"
    return "leaky_relu" if 0 < slope < 0.99 else None
