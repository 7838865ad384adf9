"""Labelled examples, the test set that is loaded when it is opened, and the Data that a trial receives.

Knows tensors only; must not know where examples come from or what is trained on them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nasact.errors import DataError

WHY_VALIDATION = ", to train the mixture weights and to compare trials"
"""What validation examples are needed for; the end of a message that says that there are none."""


@dataclass(frozen=True, eq=False)
class Split:
    """Examples `x` (float32, N x ...) with their labels `y` (int64, N)."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def take(self, indices: Tensor) -> Split:
        """The examples at `indices`, in that order."""
        return Split(self.x[indices], self.y[indices])


def check_split(
    split: Split, place: str, classes: int, input_shape: tuple[int, ...] | None = None, *, why: str = ""
) -> None:
    """Raise DataError, with `place` and the first bad example, unless `split` has valid types, shapes and values.

    Valid: one label per example, at least one example, finite `x` of shape (N, *input_shape), 0 <= `y` < classes.
    `why` explains in the message what the examples are needed for.
    """
    if not isinstance(split, Split):
        raise DataError(f"{place}: expected a Split, but got {type(split).__name__}")
    for name, values, dtype in (("x", split.x, torch.float32), ("y", split.y, torch.int64)):
        if not isinstance(values, Tensor):
            raise DataError(f"{place}.{name}: expected a tensor, but got {type(values).__name__}")
        if values.dtype != dtype:
            raise DataError(f"{place}.{name}: expected {dtype}, but got {values.dtype}")
    if split.y.ndim != 1:
        raise DataError(f"{place}.y: expected one label per example, shape (N,), but got {tuple(split.y.shape)}")
    if split.x.ndim < 2:
        raise DataError(f"{place}.x: expected shape (N, ...), but got {tuple(split.x.shape)}")
    if len(split.x) != len(split.y):
        raise DataError(f"{place}: needs one label per example, but got {len(split.x)} examples, {len(split.y)} labels")
    if len(split.y) == 0:
        raise DataError(f"{place}: holds no examples: at least 1 is needed{why}")
    if input_shape is not None and tuple(split.x.shape[1:]) != tuple(input_shape):
        raise DataError(
            f"{place}.x: examples must have the shape {tuple(input_shape)}, but have {tuple(split.x.shape[1:])}"
        )
    _check_finite(split.x, place)
    _check_labels(split.y, place, classes)


def _check_finite(x: Tensor, place: str) -> None:
    # A finite sum proves that every term is finite, and needs no mask as large as the data. A sum that is not finite
    # may have overflowed: then the values are checked one by one.
    if bool(torch.isfinite(x.sum())):
        return
    bad = torch.nonzero(~torch.isfinite(x))
    if len(bad):
        where = tuple(bad[0].tolist())
        value = float(x[where])
        raise DataError(f"{place}.x[{where[0]}]: every value must be finite, but found {value} at {where[1:]}")


def _check_labels(y: Tensor, place: str, classes: int) -> None:
    bad = torch.nonzero((y < 0) | (y >= classes))
    if len(bad):
        first = int(bad[0, 0])
        raise DataError(f"{place}.y[{first}]: labels must be in [0, {classes}), but got {int(y[first])}")


class TestSet:
    """Test examples that are loaded by `open()`, the only way to read them; `openings` counts its calls."""

    # without this, pytest would collect the class because of its name
    __test__ = False

    def __init__(self, load: Callable[[], Split]) -> None:
        self._load = load
        self._split: Split | None = None
        self._expected: tuple[str, int, tuple[int, ...]] | None = None
        self.openings = 0

    def expect(self, place: str, classes: int, input_shape: tuple[int, ...]) -> None:
        """Set what `open` checks: labels in [0, classes) and the shape of one example; `place` starts its message."""
        self._expected = (place, classes, input_shape)

    def open(self) -> Split:
        """Return the test examples; load and check them on the first call."""
        if self._split is None:
            split = self._load()
            if self._expected is not None:
                place, classes, input_shape = self._expected
                check_split(split, place, classes, input_shape)
            self._split = split
        self.openings += 1
        return self._split

    def __repr__(self) -> str:
        return f"TestSet(openings={self.openings})"


@dataclass(frozen=True, eq=False)
class Data:
    """What a trial receives: training and validation examples, and a test set that only the comparison opens."""

    name: str
    train: Split
    val: Split
    classes: int
    input_shape: tuple[int, ...]
    test: TestSet

    def __post_init__(self) -> None:
        place = f"dataset {self.name!r}"
        if isinstance(self.classes, bool) or not isinstance(self.classes, int) or self.classes < 2:
            raise DataError(f"{place}: at least 2 classes are needed, but got classes={self.classes!r}")
        if not isinstance(self.test, TestSet):
            raise DataError(f"{place}: test must be a TestSet, but got {type(self.test).__name__}")
        object.__setattr__(self, "input_shape", tuple(self.input_shape))
        check_split(self.train, f"{place}: train", self.classes, self.input_shape)
        check_split(self.val, f"{place}: val", self.classes, self.input_shape, why=WHY_VALIDATION)
        self.test.expect(f"{place}: test", self.classes, self.input_shape)

    def train_and_val(self) -> Split:
        """Training and validation examples together; the final retraining trains on them."""
        return Split(torch.cat([self.train.x, self.val.x]), torch.cat([self.train.y, self.val.y]))


def data_fingerprint(split: Split) -> str:
    """A hash of the shape, the labels and a sample of the examples: enough to detect that the data is different.

    The sample has all examples if there are fewer than 128; otherwise 64 to 127, evenly spaced.
    """
    sample = split.x[:: max(1, len(split) // 64)].contiguous().cpu().numpy().tobytes()
    labels = split.y.contiguous().cpu().numpy().tobytes()
    return digest(str(tuple(split.x.shape)), hashlib.sha256(sample).hexdigest(), hashlib.sha256(labels).hexdigest())


def digest(*texts: str) -> str:
    """The SHA-256 of several texts, in hexadecimal."""
    return hashlib.sha256("\x1f".join(texts).encode()).hexdigest()
