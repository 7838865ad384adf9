"""Data that arrives with the installation: scikit-learn's digits. Nothing to download."""

from __future__ import annotations

import torch

from nasact.tasks.raw_dataset import TEST_SEED, Source
from nasact.tasks.split import Split, TestSet
from nasact.tasks.stratify import stratified_split


def digits() -> Source:
    """1797 images of 8 x 8, grey values / 16; a fifth, always the same, is the test set."""
    return Source(train=_digits_part(0), test=TestSet(_digits_test), classes=10)


def _digits_test() -> Split:
    return _digits_part(1)


def _digits_part(part: int) -> Split:
    # slow to import, and only needed here
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.from_numpy(bunch.images).to(torch.float32).div_(16.0).unsqueeze(1)
    y = torch.from_numpy(bunch.target).to(torch.int64)
    indices = stratified_split(y, 0.2, TEST_SEED, place="dataset 'digits'", option="test")[part]
    return Split(x, y).take(indices.sort().values)
