"""A user's own dataset by import path: what `pkg.mod:function` returns becomes a RawDataset.

The function may return a Data, or (train, test) or (train, val, test), where each part is an (x, y) pair of tensors or
arrays, a Split, or a torch Dataset. The test part may also be a function without arguments, which is called when the
test set is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from nasact.errors import DataError, error_line
from nasact.tasks.datasets.raw_dataset import RawDataset
from nasact.tasks.describe import describe
from nasact.tasks.import_path import call_user_code, import_callable
from nasact.tasks.split import Data, Split, TestSet
from nasact.training.seeds import RandomStream

EXPECTED = "a nasact.tasks.Data, (train, test) or (train, val, test) of (x, y) pairs or torch Datasets"


def load_custom_dataset(path: str, options: Mapping[str, Any], *, seed: int, data_dir: Path | None) -> RawDataset:
    """Call the user's function and convert what it returns.

    `seed` fixes the global random numbers during the call and restores them afterwards. The function also receives
    `seed` and `data_dir` if its signature has them.
    """
    place = f"dataset {path!r}"
    function = import_callable(path, place=place, error=DataError)
    with RandomStream(seed):
        supplied = {"seed": seed, "data_dir": data_dir}
        return _raw_dataset(call_user_code(function, options, supplied, place=place, error=DataError), place)


def _raw_dataset(returned: Any, place: str) -> RawDataset:
    if isinstance(returned, Data):
        return RawDataset(train=returned.train, val=returned.val, test=returned.test, classes=returned.classes)
    if not isinstance(returned, tuple | list) or len(returned) not in (2, 3):
        raise DataError(f"{place}: must return {EXPECTED}, but returned {describe(returned)}")
    parts = dict(zip(("train", "test") if len(returned) == 2 else ("train", "val", "test"), returned, strict=True))
    train = as_split(parts["train"], f"{place}: train")
    val = as_split(parts["val"], f"{place}: val") if "val" in parts else None
    return RawDataset(
        train=train, val=val, test=_test_set(parts["test"], place), classes=_count_classes(parts["train"], train, val)
    )


def _test_set(value: Any, place: str) -> TestSet:
    if isinstance(value, TestSet):
        return value
    if not (_is_pair(value) or isinstance(value, Split | Dataset) or callable(value)):
        raise DataError(f"{place}: test: expected an (x, y) pair or a torch Dataset, but got {describe(value)}")
    return TestSet(partial(_load_test, value, f"{place}: test"))


def _load_test(value: Any, place: str) -> Split:
    if callable(value) and not isinstance(value, Dataset):
        value = call_user_code(value, {}, {}, place=place, error=DataError)
    return as_split(value, place)


def _count_classes(returned: Any, train: Split, val: Split | None) -> int:
    """The length of the dataset's attribute `classes` if it is a list; otherwise the largest label plus 1."""
    names = getattr(returned, "classes", None)
    if isinstance(names, list | tuple):
        return len(names)
    labels = train.y if val is None else torch.cat([train.y, val.y])
    return int(labels.max()) + 1 if len(labels) else 0


def as_split(value: Any, place: str) -> Split:
    """Convert an (x, y) pair of tensors or arrays, or a torch Dataset of (x, y) examples, to a Split."""
    if isinstance(value, Split):
        return value
    if isinstance(value, TensorDataset):
        value = value.tensors
    elif isinstance(value, Dataset):
        value = _stack_examples(value, place)
    if not _is_pair(value):
        raise DataError(f"{place}: expected an (x, y) pair or a torch Dataset, but got {describe(value)}")
    x, y = (_as_tensor(part, f"{place}.{name}") for name, part in zip("xy", value, strict=True))
    if not x.is_floating_point():
        raise DataError(f"{place}.x: expected floating-point numbers, but got {x.dtype}: scale them, as in x / 255")
    if y.is_floating_point() or y.is_complex():
        raise DataError(f"{place}.y: expected whole numbers as labels, but got {y.dtype}")
    return Split(x.detach().to(torch.float32), y.detach().to(torch.int64))


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2


def _as_tensor(value: Any, place: str) -> Tensor:
    if isinstance(value, Tensor):
        return value
    try:
        return torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError) as failure:
        raise DataError(f"{place}: cannot be converted to a tensor: {error_line(failure)}") from failure


def _stack_examples(dataset: Dataset[Any], place: str) -> tuple[Tensor, Tensor]:
    """Stack all examples of a map-style dataset: x (N x ...), y (N)."""
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise DataError(f"{place}: expected a Dataset with a length, but got {type(dataset).__name__}")
    xs: list[Tensor] = []
    ys: list[int] = []
    for index in range(len(dataset)):
        x, y = _example(dataset.__getitem__, index, place)
        if xs and x.shape != xs[0].shape:
            raise DataError(f"{place}[{index}]: expected the shape {tuple(xs[0].shape)}, but got {tuple(x.shape)}")
        xs.append(x)
        ys.append(y)
    if not xs:
        raise DataError(f"{place}: holds no examples: at least 1 is needed")
    return torch.stack(xs), torch.tensor(ys)


def _example(get: Callable[[int], Any], index: int, place: str) -> tuple[Tensor, int]:
    try:
        example = get(index)
    except Exception as failure:
        raise DataError(f"{place}[{index}]: raised {error_line(failure)}") from failure
    if not _is_pair(example):
        raise DataError(f"{place}[{index}]: expected an (x, y) pair, but got {describe(example)}")
    x, y = example
    if not isinstance(x, Tensor | np.ndarray):
        raise DataError(f"{place}[{index}]: x must be a tensor or an array, but is {type(x).__name__}")
    label = _as_tensor(y, f"{place}[{index}]")
    if label.numel() != 1 or label.is_floating_point():
        raise DataError(f"{place}[{index}]: y must be one whole number, but is {describe(y)}")
    return torch.as_tensor(x), int(label)
