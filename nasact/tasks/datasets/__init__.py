"""The datasets that a study can name. Each file registers its records in `DATASETS`; a new file needs no other line."""

from __future__ import annotations

from nasact.registry import import_submodules
from nasact.tasks.datasets.base import DATASETS, DatasetRecord, register_dataset
from nasact.tasks.datasets.load import load_data
from nasact.tasks.datasets.raw_dataset import RawDataset

import_submodules(__name__, __path__)

__all__ = ["DATASETS", "DatasetRecord", "RawDataset", "load_data", "register_dataset"]
