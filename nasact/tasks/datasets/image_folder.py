"""A folder of images with one folder per class (torchvision's ImageFolder layout), as normalised tensors in memory.

The test images are a folder `test/`, another path, or a fixed stratified fraction. They are decoded when the test set
is opened.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from nasact.errors import DataError, did_you_mean, error_line
from nasact.tasks.datasets.base import DatasetRecord, register_dataset
from nasact.tasks.datasets.raw_dataset import TEST_SEED, RawDataset
from nasact.tasks.split import Split, TestSet
from nasact.tasks.stratify import stratified_split

DEFAULT_TEST_FRACTION = 0.2
LabelledFiles = tuple[tuple[str, int], ...]
"""Pairs (path, label)."""


def image_folder(
    *,
    path: str | Path,
    size: Annotated[int, Field(ge=1)] = 32,
    test: str | Path | float | None = None,
    channels: Literal[1, 3] = 3,
    memory_limit: Annotated[float, Field(gt=0)] = 8.0,
) -> RawDataset:
    """The images below `path`: shorter side scaled to `size`, centre cropped, normalised by the training images.

    `test`: a path, or the fraction to hold out (0.2 unless `path` has the folders train/ and test/).
    `memory_limit` is in GB.
    """
    root = Path(path).expanduser()
    place = f"dataset 'image_folder': {root}"
    train_files, test_files, classes = _find_files(root, test, place)
    _check_memory(len(train_files), len(test_files), (channels, size, size), memory_limit, place)
    pixels, labels = _decode(train_files, channels, size, place)
    x = pixels.to(torch.float32).div_(255.0)
    mean = x.mean(dim=(0, 2, 3), keepdim=True)
    # the standard deviation is 0 if all images have one colour
    std = x.std(dim=(0, 2, 3), keepdim=True, correction=0).clamp_(min=1e-3)
    x.sub_(mean).div_(std)
    load_test = partial(_load_test, test_files, channels, size, mean, std, place)
    return RawDataset(train=Split(x, labels), test=TestSet(load_test), classes=len(classes))


register_dataset(
    DatasetRecord(
        name="image_folder",
        load=image_folder,
        description="your own images, one folder per class, with or without train/ and test/ above them",
        source="yours",
        shape="channels x size x size",
        classes="one per folder",
        preparation="scaled, centre cropped, mean 0 and standard deviation 1 per channel over the training images",
    )
)


def _load_test(files: LabelledFiles, channels: int, size: int, mean: Tensor, std: Tensor, place: str) -> Split:
    pixels, labels = _decode(files, channels, size, place)
    return Split(pixels.to(torch.float32).div_(255.0).sub_(mean).div_(std), labels)


def _find_files(
    root: Path, test: str | Path | float | None, place: str
) -> tuple[LabelledFiles, LabelledFiles, tuple[str, ...]]:
    """The training files, the test files, and the names of the classes."""
    if (root / "train").is_dir() and (root / "test").is_dir():
        if test is not None:
            raise DataError(
                f"{place}: has the folders train/ and test/, so the option 'test' must not be set, but got {test!r}"
            )
        train, classes = _list_images(root / "train", place)
        return train, _list_test_images(root / "test", classes, place), classes
    train, classes = _list_images(root, place)
    if isinstance(test, str | Path):
        return train, _list_test_images(Path(test).expanduser(), classes, place), classes
    fraction = DEFAULT_TEST_FRACTION if test is None else test
    labels = torch.tensor([label for _, label in train])
    kept, held_out = stratified_split(labels, fraction, TEST_SEED, place=place, option="test")
    train_files, test_files = (tuple(train[int(index)] for index in part.sort().values) for part in (kept, held_out))
    return train_files, test_files, classes


def _list_images(folder: Path, place: str) -> tuple[LabelledFiles, tuple[str, ...]]:
    if not folder.is_dir():
        raise DataError(f"{place}: there is no folder {folder.absolute()}")
    # imported here because the import takes 3.7 s
    from torchvision.datasets import ImageFolder

    try:
        found = ImageFolder(str(folder))
    except (OSError, RuntimeError) as failure:
        raise DataError(
            f"{place}: expected one folder of images for each class in {folder.absolute()}: {error_line(failure)}"
        ) from failure
    return tuple((str(path), int(label)) for path, label in found.samples), tuple(found.classes)


def _list_test_images(folder: Path, classes: tuple[str, ...], place: str) -> LabelledFiles:
    """The test files with the labels of the training folders of the same name, whatever the position of the folder."""
    files, test_classes = _list_images(folder, place)
    for name in test_classes:
        if name not in classes:
            raise DataError(
                f"{place}: {folder.absolute()} has a class {name!r} without training images."
                f"{did_you_mean(name, classes)}"
            )
    return tuple((path, classes.index(test_classes[label])) for path, label in files)


def _check_memory(train: int, test: int, shape: tuple[int, int, int], limit: float, place: str) -> None:
    # float32; while training and validation examples are copied out of the training images, both are in memory
    channels, height, width = shape
    needed = (2 * train + test) * channels * height * width * 4 / 1e9
    if needed > limit:
        raise DataError(
            f"{place}: {train + test} images of {channels} x {height} x {width} need about {needed:.3g} GB in memory, "
            f"but memory_limit is {limit:g} GB: choose a smaller size, or raise memory_limit"
        )


def _decode(files: LabelledFiles, channels: int, size: int, place: str) -> tuple[Tensor, Tensor]:
    """All images as one uint8 tensor (N x channels x size x size), and their labels (int64, N)."""
    x = torch.empty((len(files), channels, size, size), dtype=torch.uint8)
    for index, (path, _) in enumerate(files):
        x[index] = _decode_one(path, channels, size, place)
    return x, torch.tensor([label for _, label in files], dtype=torch.int64)


def _decode_one(path: str, channels: int, size: int, place: str) -> Tensor:
    import numpy as np
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            pixels: Any = image
            if pixels.mode == "P":
                # converting a palette with transparency directly to RGB makes Pillow warn
                pixels = pixels.convert("RGBA")
            pixels = pixels.convert("RGB" if channels == 3 else "L")
            if pixels.size != (size, size):
                pixels = ImageOps.fit(pixels, (size, size), method=Image.Resampling.BILINEAR)
            values = np.array(pixels, dtype=np.uint8)
    except Exception as failure:
        # each decoder raises other errors: SyntaxError for a broken PNG, struct.error, OSError, ...
        raise DataError(f"{place}: the image {path} cannot be read: {error_line(failure)}") from failure
    return torch.from_numpy(values.reshape(size, size, channels)).permute(2, 0, 1)
