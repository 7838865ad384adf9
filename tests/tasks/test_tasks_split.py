"""Stratified splits, the checks of Data, and the test set that is loaded when it is opened."""

from __future__ import annotations

import pickle
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nasact.errors import DataError
from nasact.tasks import Data, RawDataset, Split, TestSet
from nasact.tasks.stratify import apportion, stratified_sample, stratified_split

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=120).map(torch.tensor)
FRACTIONS = st.floats(0.01, 0.99)


def split_of(count: int = 20, classes: int = 4) -> Split:
    return Split(torch.arange(count * 3, dtype=torch.float32).view(count, 3), torch.arange(count) % classes)


def data_of(train: Split | None = None, val: Split | None = None, test: TestSet | None = None) -> Data:
    return Data(
        "toy", split_of() if train is None else train, val or split_of(8), 4, (3,), test or TestSet(lambda: split_of(8))
    )


def source_of(train: Split, classes: int = 4) -> RawDataset:
    return RawDataset(train=train, test=TestSet(lambda: split_of(12)), classes=classes)


@settings(deadline=None, max_examples=150)
@given(y=LABELS, fraction=FRACTIONS, seed=st.integers(0, 2**31))
def test_split_partitions_the_examples_and_keeps_every_class_in_training(y, fraction, seed):
    sizes = Counter(y.tolist())
    possible = sum(size - 1 for size in sizes.values())
    if not 1 <= round(len(y) * fraction) <= possible:
        with pytest.raises(DataError, match="validation="):
            stratified_split(y, fraction, seed, place="toy", option="validation")
        return
    rest, held_out = stratified_split(y, fraction, seed, place="toy", option="validation")
    assert sorted(torch.cat([rest, held_out]).tolist()) == list(range(len(y)))
    assert len(held_out) == round(len(y) * fraction)
    assert set(y[rest].tolist()) == set(sizes)
    held_out_sizes = Counter(y[held_out].tolist())
    assert all(held_out_sizes[label] == 0 for label, size in sizes.items() if size == 1)


@settings(deadline=None, max_examples=50)
@given(repeats=st.integers(2, 30), fraction=st.floats(0.1, 0.5), seed=st.integers(0, 2**31))
def test_balanced_classes_are_held_out_evenly(repeats, fraction, seed):
    y = torch.arange(5).repeat(repeats)
    if round(len(y) * fraction) < 1:
        return
    _, held_out = stratified_split(y, fraction, seed, place="toy", option="validation")
    counts = torch.bincount(y[held_out], minlength=5)
    assert int(counts.max() - counts.min()) <= 1


@settings(deadline=None, max_examples=150)
@given(
    groups=st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50)), min_size=1, max_size=8), share=st.floats(0, 1)
)
def test_apportion_distributes_all_seats_and_respects_every_cap(groups, share):
    sizes, caps = [list(part) for part in zip(*groups, strict=True)]
    total = int(share * sum(caps))
    seats = apportion(sizes, caps, total)
    assert sum(seats) == total
    assert all(0 <= seat <= cap for seat, cap in zip(seats, caps, strict=True))


@pytest.mark.usefixtures("global_random_state_unchanged")
def test_split_depends_on_its_seed_only():
    y = torch.arange(10).repeat(20)

    def held_out(seed: int) -> list[int]:
        return stratified_split(y, 0.2, seed, place="toy", option="validation")[1].tolist()

    first = held_out(3)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert held_out(3) == first
    assert held_out(4) != first


def test_split_of_sorted_classes_is_shuffled():
    y = torch.arange(10).repeat_interleave(50)
    for part in stratified_split(y, 0.2, 0, place="toy", option="validation"):
        assert len(set(y[part[:20]].tolist())) > 3


@settings(deadline=None, max_examples=100)
@given(y=LABELS, count=st.integers(1, 150), seed=st.integers(0, 2**31))
def test_sample_has_the_requested_size_no_repeats_and_classes_in_proportion(y, count, seed):
    chosen = stratified_sample(y, count, seed, place="toy", option="train_limit")
    assert len(set(chosen.tolist())) == len(chosen) == min(count, len(y))
    for label, size in Counter(y.tolist()).items():
        taken = int((y[chosen] == label).sum())
        assert abs(taken - min(1.0, count / len(y)) * size) <= 1.0


def test_train_limit_counts_training_and_validation_together():
    data = source_of(split_of(200)).to_data("toy", validation=0.25, seed=0, train_limit=40, test_limit=5)
    assert (len(data.train), len(data.val), len(data.train_and_val())) == (30, 10, 40)
    assert len(data.test.open()) == 5


def test_examples_keep_their_labels_through_limits_and_splits():
    data = source_of(split_of(200)).to_data("toy", validation=0.3, seed=1, train_limit=60, test_limit=None)
    for split in (data.train, data.val, data.train_and_val(), data.test.open()):
        assert torch.equal((split.x[:, 0] / 3).long() % 4, split.y)


def test_limited_test_examples_do_not_depend_on_the_seed():
    opened = [
        source_of(split_of(50)).to_data("toy", validation=0.2, seed=seed, train_limit=None, test_limit=6).test.open()
        for seed in (0, 1)
    ]
    assert torch.equal(opened[0].x, opened[1].x)


def test_own_validation_examples_are_used_unchanged():
    own = split_of(8)
    source = RawDataset(train=split_of(40), val=own, test=TestSet(lambda: split_of(8)), classes=4)
    data = source.to_data("toy", validation=0.5, seed=0, train_limit=None, test_limit=None)
    assert data.val is own
    assert len(data.train) == 40


def test_test_set_is_loaded_once_and_counts_its_openings():
    loads: list[int] = []

    def load() -> Split:
        loads.append(1)
        return split_of(8)

    data = data_of(test=TestSet(load))
    assert (loads, data.test.openings) == ([], 0)
    assert data.test.open() is data.test.open()
    assert (loads, data.test.openings) == ([1], 2)


def test_test_examples_are_checked_when_they_are_opened():
    wrong = Split(torch.zeros(4, 3), torch.tensor([0, 1, 9, 2]))
    data = data_of(test=TestSet(lambda: wrong))
    with pytest.raises(DataError, match=r"dataset 'toy': test\.y\[2\]: labels must be in \[0, 4\), but got 9"):
        data.test.open()
    assert data.test.openings == 0


def nan_at(index: int, value: float) -> Split:
    split = split_of()
    split.x[index, 1] = value
    return split


BAD_SPLITS = {
    "label above": (
        Split(torch.zeros(3, 3), torch.tensor([0, 4, 7])),
        r"train\.y\[1\]: labels must be in \[0, 4\).* 4",
    ),
    "label below": (Split(torch.zeros(3, 3), torch.tensor([0, 1, -1])), r"train\.y\[2\]: labels must be in .* -1"),
    "nan": (nan_at(5, float("nan")), r"train\.x\[5\]: every value must be finite, but found nan at \(1,\)"),
    "inf": (nan_at(0, float("-inf")), r"train\.x\[0\]: every value must be finite, but found -inf"),
    "float labels": (
        Split(torch.zeros(3, 3), torch.zeros(3)),
        r"train\.y: expected torch\.int64, but got torch\.float32",
    ),
    "double": (Split(torch.zeros(3, 3).double(), torch.zeros(3).long()), r"train\.x: expected torch\.float32"),
    "one-hot": (Split(torch.zeros(3, 3), torch.zeros(3, 4).long()), r"one label per example.*\(3, 4\)"),
    "lengths": (Split(torch.zeros(3, 3), torch.zeros(2).long()), r"one label per example.* 3 examples, 2 labels"),
    "empty": (Split(torch.zeros(0, 3), torch.zeros(0).long()), r"train: holds no examples"),
    "shape": (Split(torch.zeros(3, 5), torch.zeros(3).long()), r"the shape \(3,\), but have \(5,\)"),
    "no features": (Split(torch.zeros(3), torch.zeros(3).long()), r"expected shape \(N, \.\.\.\)"),
    "arrays": (Split([1.0], [0]), r"train\.x: expected a tensor, but got list"),
    "not a split": ((torch.zeros(3, 3), torch.zeros(3)), r"expected a Split, but got tuple"),
}


@pytest.mark.parametrize("case", BAD_SPLITS)
def test_bad_data_is_refused_with_the_first_bad_place(case):
    split, message = BAD_SPLITS[case]
    with pytest.raises(DataError, match=message) as caught:
        data_of(train=split)
    assert str(caught.value).startswith("dataset 'toy': ")
    assert "\n" not in str(caught.value)


def test_large_but_finite_values_are_accepted():
    data_of(train=Split(torch.full((20, 3), 3.0e38), split_of().y))


@pytest.mark.parametrize("classes", [1, 0, 2.5, True])
def test_data_needs_two_classes(classes):
    with pytest.raises(DataError, match="at least 2 classes"):
        Data("toy", split_of(), split_of(), classes, (3,), TestSet(split_of))


def test_data_needs_a_test_set_that_can_be_opened():
    with pytest.raises(DataError, match="test must be a TestSet, but got Split"):
        Data("toy", split_of(), split_of(), 4, (3,), split_of())


@pytest.mark.parametrize(
    ("count", "validation", "message"),
    [
        (20, 0.0, "`0 < validation < 1` must hold"),
        (20, 1.0, "`0 < validation < 1` must hold"),
        (20, 0.01, "validation=0.01 of 20 examples holds out none"),
        (20, 0.95, "every class must keep at least 1: at most 16"),
        (4, 0.5, "every class must keep at least 1: at most 0"),
    ],
)
def test_a_validation_fraction_that_leaves_no_examples_is_refused(count, validation, message):
    with pytest.raises(DataError, match=message):
        source_of(split_of(count)).to_data("toy", validation=validation, seed=0, train_limit=None, test_limit=None)


@pytest.mark.parametrize("limit", [0, -5, 2.5, True])
@pytest.mark.parametrize("which", ["train_limit", "test_limit"])
def test_a_limit_must_be_a_whole_number_of_at_least_one(which, limit):
    limits = {"train_limit": None, "test_limit": None, which: limit}
    with pytest.raises(DataError, match=f"{which} must be a whole number of at least 1"):
        source_of(split_of(40)).to_data("toy", validation=0.2, seed=0, **limits)


def open_pickled_test() -> Split:
    return split_of(8)


def test_pickled_data_keeps_its_test_set_unopened():
    source = RawDataset(train=split_of(40), test=TestSet(open_pickled_test), classes=4)
    data = source.to_data("toy", validation=0.2, seed=0, train_limit=None, test_limit=4)
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy.train.x, data.train.x)
    assert copy.test.openings == 0
    assert torch.equal(copy.test.open().x, data.test.open().x)
