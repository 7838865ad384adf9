"""Load a dataset by its name in a study: a registered name, or the import path of the user's own function."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nasact.errors import DataError, UnknownName
from nasact.tasks.datasets.base import DATASETS
from nasact.tasks.datasets.custom_dataset import load_custom_dataset
from nasact.tasks.datasets.raw_dataset import RawDataset
from nasact.tasks.import_path import is_import_path
from nasact.tasks.signature_options import check_options, keyword_parameters
from nasact.tasks.split import Data


def load_data(
    name: str,
    options: Mapping[str, Any],
    *,
    validation: float,
    seed: int,
    data_dir: Path | None = None,
    download: bool = False,
    train_limit: int | None = None,
    test_limit: int | None = None,
) -> Data:
    """Return the dataset `name` (or `pkg.mod:function`) with a part of its training examples held out for validation.

    `validation` is the fraction held out (0..1); `seed` determines which examples. See `RawDataset.to_data` for the
    limits.
    """
    raw = _load_raw(name, options, seed=seed, data_dir=data_dir, download=download)
    return raw.to_data(name, validation=validation, seed=seed, train_limit=train_limit, test_limit=test_limit)


def _load_raw(name: str, options: Mapping[str, Any], *, seed: int, data_dir: Path | None, download: bool) -> RawDataset:
    data_dir = None if data_dir is None else Path(data_dir)
    if is_import_path(name):
        return load_custom_dataset(name, options, seed=seed, data_dir=data_dir)
    if name not in DATASETS and "." in name:
        raise UnknownName(f"{DATASETS.unknown(name)}; your own function is written 'package.module:function'")
    record = DATASETS.get(name)
    checked = check_options(record.load, options, supplied=record.supplied, place=f"dataset {name!r}", error=DataError)
    accepted = keyword_parameters(record.load)
    supplied = {"data_dir": data_dir, "download": download}
    return record.load(**checked, **{key: value for key, value in supplied.items() if key in accepted})
