"""scikit-learn's digits: installed with scikit-learn, so nothing has to be downloaded."""

from __future__ import annotations

import torch

from nasact.tasks.datasets.base import DatasetRecord, register_dataset
from nasact.tasks.datasets.raw_dataset import TEST_SEED, RawDataset
from nasact.tasks.split import Split, TestSet
from nasact.tasks.stratify import stratified_split


def digits() -> RawDataset:
    """1797 images of 8 x 8, grey values / 16; a fixed fifth is the test set."""
    return RawDataset(train=_load_part(0), test=TestSet(_load_test), classes=10)


def _load_test() -> Split:
    return _load_part(1)


def _load_part(part: int) -> Split:
    """The training examples (part 0) or the test examples (part 1)."""
    # imported here because the import is slow
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.from_numpy(bunch.images).to(torch.float32).div_(16.0).unsqueeze(1)
    y = torch.from_numpy(bunch.target).to(torch.int64)
    indices = stratified_split(y, 0.2, TEST_SEED, place="dataset 'digits'", option="test")[part]
    return Split(x, y).take(indices.sort().values)


register_dataset(
    DatasetRecord(
        name="digits",
        load=digits,
        description="1,797 handwritten digits bundled with scikit-learn; a fixed fifth is the test set",
        source="UCI Optical Recognition of Handwritten Digits",
        shape="1 x 8 x 8",
        classes="10",
        preparation="value / 16",
    )
)
