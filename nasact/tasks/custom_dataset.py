"""A user's own dataset by import path: what `pkg.mod:function` returned, turned into a Source.

Accepts a Data, or (train, test) or (train, val, test) made of (x, y) pairs of tensors or arrays, Splits, or torch
Datasets; the test part may be a function, which is then not called before the test set is opened.
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
from nasact.tasks.import_path import call_user_code, import_callable
from nasact.tasks.raw_dataset import Source
from nasact.tasks.split import Data, Split, TestSet
from nasact.training.seeds import RandomStream

EXPECTED = "a nasact.tasks.Data, (train, test) or (train, val, test) of (x, y) pairs or torch Datasets"


def load_custom_dataset(path: str, options: Mapping[str, Any], *, seed: int, data_dir: Path | None) -> Source:
    """Call the user's function, inside random numbers of its own, and read what it returns."""
    place = f"dataset {path!r}"
    function = import_callable(path, place=place, error=DataError)
    with RandomStream(seed):
        supplied = {"seed": seed, "data_dir": data_dir}
        return _source(call_user_code(function, options, supplied, place=place, error=DataError), place)


def _source(returned: Any, place: str) -> Source:
    if isinstance(returned, Data):
        return Source(train=returned.train, val=returned.val, test=returned.test, classes=returned.classes)
    if not isinstance(returned, tuple | list) or len(returned) not in (2, 3):
        raise DataError(f"{place}: must return {EXPECTED}, but returned {_describe(returned)}")
    named = dict(zip(("train", "test") if len(returned) == 2 else ("train", "val", "test"), returned, strict=True))
    train = as_split(named["train"], f"{place}: train")
    val = as_split(named["val"], f"{place}: val") if "val" in named else None
    return Source(
        train=train, val=val, test=_test_set(named["test"], place), classes=_classes(named["train"], train, val)
    )


def _test_set(value: Any, place: str) -> TestSet:
    if isinstance(value, TestSet):
        return value
    if not (_is_pair(value) or isinstance(value, Split | Dataset) or callable(value)):
        raise DataError(f"{place}: test: expected an (x, y) pair or a torch Dataset, but got {_describe(value)}")
    return TestSet(partial(_open, value, f"{place}: test"))


def _open(value: Any, place: str) -> Split:
    if callable(value) and not isinstance(value, Dataset):
        value = call_user_code(value, {}, {}, place=place, error=DataError)
    return as_split(value, place)


def _classes(given: Any, train: Split, val: Split | None) -> int:
    """The dataset's own list of classes where it has one, else one more than the largest label."""
    listed = getattr(given, "classes", None)
    if isinstance(listed, list | tuple):
        return len(listed)
    labels = train.y if val is None else torch.cat([train.y, val.y])
    return int(labels.max()) + 1 if len(labels) else 0


def as_split(value: Any, place: str) -> Split:
    """A Split from an (x, y) pair of tensors or arrays, or from a torch Dataset of such examples."""
    if isinstance(value, Split):
        return value
    if isinstance(value, TensorDataset):
        value = value.tensors
    elif isinstance(value, Dataset):
        value = _collect(value, place)
    if not _is_pair(value):
        raise DataError(f"{place}: expected an (x, y) pair or a torch Dataset, but got {_describe(value)}")
    x, y = (_tensor(part, f"{place}.{name}") for name, part in zip("xy", value, strict=True))
    if not x.is_floating_point():
        raise DataError(f"{place}.x: expected floating point numbers, but got {x.dtype}: scale them, as in x / 255")
    if y.is_floating_point() or y.is_complex():
        raise DataError(f"{place}.y: expected whole numbers as labels, but got {y.dtype}")
    return Split(x.detach().to(torch.float32), y.detach().to(torch.int64))


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2


def _tensor(value: Any, place: str) -> Tensor:
    if isinstance(value, Tensor):
        return value
    try:
        return torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError) as failure:
        raise DataError(f"{place}: cannot become a tensor: {error_line(failure)}") from failure


def _collect(dataset: Dataset[Any], place: str) -> tuple[Tensor, Tensor]:
    """Every example of a map-style dataset, stacked."""
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
        raise DataError(f"{place}[{index}]: expected an (x, y) pair, but got {_describe(example)}")
    x, y = example
    if not isinstance(x, Tensor | np.ndarray):
        raise DataError(f"{place}[{index}]: x must be a tensor or an array, but is {type(x).__name__}")
    label = _tensor(y, f"{place}[{index}]")
    if label.numel() != 1 or label.is_floating_point():
        raise DataError(f"{place}[{index}]: y must be one whole number, but is {_describe(y)}")
    return torch.as_tensor(x), int(label)


def _describe(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, Tensor | np.ndarray):
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    text = repr(value)
    return (
        f"{type(value).__name__} {text}"
        if isinstance(value, str | int | float) and len(text) < 60
        else ("None" if value is None else type(value).__name__)
    )
