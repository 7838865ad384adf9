"""What every kind of dataset delivers before the validation examples are cut off: one record.

Knows splits only; must not know studies or files.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nasact.errors import DataError
from nasact.tasks.split import WHY_VALIDATION, Data, Split, TestSet, check_split
from nasact.tasks.stratify import stratified_sample, stratified_split

# which test examples a `test_limit` keeps, and which a fixed test split holds, must not depend on a study's seed
TEST_SEED = 20_240_229


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """Training examples, validation examples where the source has its own, and a test set nobody opened yet."""

    train: Split
    test: TestSet
    classes: int
    val: Split | None = None

    def assemble(
        self, name: str, *, validation: float, seed: int, train_limit: int | None, test_limit: int | None
    ) -> Data:
        """The Data of a trial: limited, then split by class with `seed` unless the source has validation examples.

        `train_limit` counts the examples that training and validation are cut from; where the source brings its own
        validation examples it counts training examples only.
        """
        place = f"dataset {name!r}"
        if self.classes < 2:
            raise DataError(f"{place}: at least 2 classes are needed, but got {self.classes}")
        pool, val = self.train, self.val
        # before anything is selected, so that a message counts the examples as the user does
        check_split(pool, f"{place}: train", self.classes)
        if train_limit is not None:
            pool = pool.take(stratified_sample(pool.y, train_limit, seed, place=place, option="train_limit"))
        if val is None:
            kept, held = stratified_split(
                pool.y, validation, seed, place=place, option="validation", why=WHY_VALIDATION
            )
            pool, val = pool.take(kept), pool.take(held)
        test = self.test if test_limit is None else TestSet(_Limited(self.test, test_limit, place))
        return Data(name, pool, val, self.classes, tuple(self.train.x.shape[1:]), test)


class _Limited:
    """Opens a test set and keeps the same few of its examples, whatever the seed. (A class, so that Data pickles.)"""

    def __init__(self, inner: TestSet, limit: int, place: str) -> None:
        # a wrong limit must not wait for the comparison to be told
        stratified_sample(torch.zeros(1), limit, TEST_SEED, place=place, option="test_limit")
        self.inner, self.limit, self.place = inner, limit, place

    def __call__(self) -> Split:
        split = self.inner.open()
        return split.take(stratified_sample(split.y, self.limit, TEST_SEED, place=self.place, option="test_limit"))
