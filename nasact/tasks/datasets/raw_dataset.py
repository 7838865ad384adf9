"""What the loader of a dataset returns, before validation examples are held out and limits are applied.

Knows splits only; must not know studies or files.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nasact.errors import DataError
from nasact.tasks.split import WHY_VALIDATION, Data, Split, TestSet, check_split
from nasact.tasks.stratify import stratified_sample, stratified_split

TEST_SEED = 20_240_229
"""Seed of every selection of test examples: these must not depend on a study's seed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RawDataset:
    """Training examples, a test set that is not read yet, and optionally the dataset's own validation examples."""

    train: Split
    test: TestSet
    classes: int
    val: Split | None = None
    """None: validation examples are held out from `train`."""

    def to_data(
        self, name: str, *, validation: float, seed: int, train_limit: int | None, test_limit: int | None
    ) -> Data:
        """The Data of a trial; without `val`, the fraction `validation` of the training examples is held out.

        `train_limit`: the number of training examples to keep, before validation examples are held out from them; the
        dataset's own validation examples are not limited. `test_limit`: the number of test examples to keep. None
        keeps all. Every selection is stratified.
        """
        place = f"dataset {name!r}"
        if self.classes < 2:
            raise DataError(f"{place}: at least 2 classes are needed, but got {self.classes}")
        train, val = self.train, self.val
        # before any selection, so that a message gives the index that the example has in the user's data
        check_split(train, f"{place}: train", self.classes)
        if train_limit is not None:
            train = train.take(stratified_sample(train.y, train_limit, seed, place=place, option="train_limit"))
        if val is None:
            kept, held_out = stratified_split(
                train.y, validation, seed, place=place, option="validation", why=WHY_VALIDATION
            )
            train, val = train.take(kept), train.take(held_out)
        test = self.test if test_limit is None else TestSet(_LimitedTestLoader(self.test, test_limit, place))
        return Data(name, train, val, self.classes, tuple(self.train.x.shape[1:]), test)


class _LimitedTestLoader:
    """Load a test set and keep `limit` examples, the same ones for every seed. A class, so that Data can be pickled."""

    def __init__(self, test: TestSet, limit: int, place: str) -> None:
        # the limit is checked now, not hours later when the comparison opens the test set
        stratified_sample(torch.zeros(1), limit, TEST_SEED, place=place, option="test_limit")
        self.test, self.limit, self.place = test, limit, place

    def __call__(self) -> Split:
        split = self.test.open()
        return split.take(stratified_sample(split.y, self.limit, TEST_SEED, place=self.place, option="test_limit"))
