"""Images in folders, one folder a class (torchvision's ImageFolder layout), as normalised tensors in memory.

The test images are a `test/` folder, another path, or a fixed stratified fraction, and stay unread until the test set
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
from nasact.tasks.raw_dataset import TEST_SEED, Source
from nasact.tasks.split import Split, TestSet
from nasact.tasks.stratify import stratified_split

DEFAULT_TEST_FRACTION = 0.2
Files = tuple[tuple[str, int], ...]


def image_folder(
    *,
    path: str | Path,
    size: Annotated[int, Field(ge=1)] = 32,
    test: str | Path | float | None = None,
    channels: Literal[1, 3] = 3,
    memory_limit: Annotated[float, Field(gt=0)] = 8.0,
) -> Source:
    """The images below `path`, shorter side scaled to `size` and the middle cut out, normalised by the training images.

    `test`: a path, or the fraction to hold out (0.2 unless `path` has the folders train/ and test/).
    `memory_limit` is in GB.
    """
    root = Path(path).expanduser()
    place = f"dataset 'image_folder': {root}"
    train_files, test_files, classes = _files(root, test, place)
    _check_memory(len(train_files), len(test_files), (channels, size, size), memory_limit, place)
    raw, labels = _decode(train_files, channels, size, place)
    x = raw.to(torch.float32).div_(255.0)
    mean = x.mean(dim=(0, 2, 3), keepdim=True)
    # an image set of one colour has no spread to divide by
    std = x.std(dim=(0, 2, 3), keepdim=True, correction=0).clamp_(min=1e-3)
    x.sub_(mean).div_(std)
    later = partial(_open, test_files, channels, size, mean, std, place)
    return Source(train=Split(x, labels), test=TestSet(later), classes=len(classes))


def _open(files: Files, channels: int, size: int, mean: Tensor, std: Tensor, place: str) -> Split:
    raw, labels = _decode(files, channels, size, place)
    return Split(raw.to(torch.float32).div_(255.0).sub_(mean).div_(std), labels)


def _files(root: Path, test: str | Path | float | None, place: str) -> tuple[Files, Files, tuple[str, ...]]:
    """Training files, test files (path, label), and the names of the classes."""
    if (root / "train").is_dir() and (root / "test").is_dir():
        if test is not None:
            raise DataError(f"{place}: has the folders train/ and test/, so the option 'test' ({test!r}) has no place")
        train, classes = _listing(root / "train", place)
        return train, _listing_like(root / "test", classes, place), classes
    train, classes = _listing(root, place)
    if isinstance(test, str | Path):
        return train, _listing_like(Path(test).expanduser(), classes, place), classes
    fraction = DEFAULT_TEST_FRACTION if test is None else test
    labels = torch.tensor([label for _, label in train])
    rest, held = stratified_split(labels, fraction, TEST_SEED, place=place, option="test")
    kept, tested = (tuple(train[int(index)] for index in part.sort().values) for part in (rest, held))
    return kept, tested, classes


def _listing(folder: Path, place: str) -> tuple[Files, tuple[str, ...]]:
    if not folder.is_dir():
        raise DataError(f"{place}: there is no folder {folder.absolute()}")
    # 3.7 s to import: not before it is needed
    from torchvision.datasets import ImageFolder

    try:
        found = ImageFolder(str(folder))
    except (OSError, RuntimeError) as failure:
        raise DataError(
            f"{place}: expected one folder of images for each class in {folder.absolute()}: {error_line(failure)}"
        ) from failure
    return tuple((str(path), int(label)) for path, label in found.samples), tuple(found.classes)


def _listing_like(folder: Path, classes: tuple[str, ...], place: str) -> Files:
    """The test files, labelled as the training folders are: the class is the folder's name, not its position."""
    files, names = _listing(folder, place)
    for name in names:
        if name not in classes:
            raise DataError(
                f"{place}: {folder.absolute()} has a class {name!r} that training has not.{did_you_mean(name, classes)}"
            )
    return tuple((path, classes.index(names[label])) for path, label in files)


def _check_memory(train: int, test: int, shape: tuple[int, int, int], limit: float, place: str) -> None:
    # float32; training and validation are cut from a whole that exists once more meanwhile
    channels, height, width = shape
    needed = (2 * train + test) * channels * height * width * 4 / 1e9
    if needed > limit:
        raise DataError(
            f"{place}: {train + test} images of {channels} x {height} x {width} need about {needed:.3g} GB in memory, "
            f"memory_limit is {limit:g} GB: choose a smaller size, or raise memory_limit"
        )


def _decode(files: Files, channels: int, size: int, place: str) -> tuple[Tensor, Tensor]:
    """All images as one uint8 tensor, N x channels x size x size, and their labels."""
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
                # a palette with transparency cannot be turned into RGB directly without a warning
                pixels = pixels.convert("RGBA")
            pixels = pixels.convert("RGB" if channels == 3 else "L")
            if pixels.size != (size, size):
                pixels = ImageOps.fit(pixels, (size, size), method=Image.Resampling.BILINEAR)
            values = np.array(pixels, dtype=np.uint8)
    except Exception as failure:
        # every decoder has failures of its own: SyntaxError for a broken PNG, struct.error, OSError, ...
        raise DataError(f"{place}: the image {path} cannot be read: {error_line(failure)}") from failure
    return torch.from_numpy(values.reshape(size, size, channels)).permute(2, 0, 1)
