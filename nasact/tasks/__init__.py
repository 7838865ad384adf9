"""The datasets and models that studies name, registered here or imported from the user's own code.

May be imported by the study and everything above it; knows nothing of activations, searches or trials.
"""

from __future__ import annotations

from nasact.tasks.datasets import DATASETS, DatasetRecord, RawDataset, load_data, register_dataset
from nasact.tasks.models import MODELS, ModelRecord, build_model, register_model
from nasact.tasks.split import Data, Split, TestSet, check_split, data_fingerprint

__all__ = [
    "DATASETS",
    "MODELS",
    "Data",
    "DatasetRecord",
    "ModelRecord",
    "RawDataset",
    "Split",
    "TestSet",
    "build_model",
    "check_split",
    "data_fingerprint",
    "load_data",
    "register_dataset",
    "register_model",
]
