"""MNIST, FashionMNIST, KMNIST and CIFAR10 in torchvision's layout, as normalised tensors in memory.

torchvision reads and downloads the files; this module reports which file is missing or corrupt, and where.
"""

from __future__ import annotations

import contextlib
import math
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nasact.errors import DataError, error_line
from nasact.tasks.datasets.base import DatasetRecord, register_dataset
from nasact.tasks.datasets.raw_dataset import RawDataset
from nasact.tasks.split import Split, TestSet

DEFAULT_DATA_DIR = Path("data")


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """One dataset of torchvision with 10 classes."""

    name: str
    torchvision_name: str
    """The class in torchvision.datasets."""
    folder: str
    """Where its files are, below the data directory."""
    mean: tuple[float, ...]
    """Per channel, over the training images, of pixel values / 255."""
    std: tuple[float, ...]
    description: str
    source: str
    shape: str

    @property
    def normalisation(self) -> str:
        mean, std = ("/".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        return f"(value / 255 - {mean}) / {std}"

    def record(self) -> DatasetRecord:
        return DatasetRecord(
            name=self.name,
            load=make_loader(self),
            description=f"{self.description}; torchvision's {self.torchvision_name} in --data-dir, or --download",
            source=self.source,
            shape=self.shape,
            classes="10",
            preparation=self.normalisation,
        )


IMAGE_SETS = (
    ImageSet(
        name="mnist",
        torchvision_name="MNIST",
        folder="MNIST/raw",
        mean=(0.1307,),
        std=(0.3081,),
        description="70,000 handwritten digits",
        source="LeCun et al. 1998",
        shape="1 x 28 x 28",
    ),
    ImageSet(
        name="fashion_mnist",
        torchvision_name="FashionMNIST",
        folder="FashionMNIST/raw",
        mean=(0.2860,),
        std=(0.3530,),
        description="70,000 articles of clothing",
        source="arXiv:1708.07747",
        shape="1 x 28 x 28",
    ),
    ImageSet(
        name="kmnist",
        torchvision_name="KMNIST",
        folder="KMNIST/raw",
        mean=(0.1918,),
        std=(0.3483,),
        description="70,000 cursive Japanese characters",
        source="arXiv:1812.01718",
        shape="1 x 28 x 28",
    ),
    ImageSet(
        name="cifar10",
        torchvision_name="CIFAR10",
        folder="cifar-10-batches-py",
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        description="60,000 photographs of animals and vehicles",
        source="Krizhevsky 2009",
        shape="3 x 32 x 32",
    ),
)


def make_loader(images: ImageSet) -> Callable[..., RawDataset]:
    """Return the function `load(data_dir=, download=)` of the dataset's record."""

    def load(*, data_dir: Path | None, download: bool) -> RawDataset:
        root = (data_dir or DEFAULT_DATA_DIR).expanduser()
        train = _read(images, root, train=True, download=download)
        return RawDataset(train=train, test=TestSet(partial(_read, images, root, train=False)), classes=10)

    return load


for _images in IMAGE_SETS:
    register_dataset(_images.record())


def _read(images: ImageSet, root: Path, *, train: bool, download: bool = False) -> Split:
    place = f"dataset {images.name!r}"
    folder = root / images.folder
    if download:
        _download(images, root, place)
    if not folder.is_dir():
        raise DataError(
            f"{place}: not found: there is no folder {folder.absolute()}. "
            "Set the data directory with --data-dir PATH, or download the files with --download"
        )
    if images.folder.endswith("raw"):
        _check_idx_files(folder, place)
    try:
        found = _torchvision_dataset(images, root, train=train)
    except Exception as failure:
        raise DataError(f"{place}: the files in {folder.absolute()} cannot be read: {error_line(failure)}") from failure
    x = torch.as_tensor(found.data)
    # CIFAR10 comes as N x 32 x 32 x 3, the others as N x 28 x 28
    x = (x.unsqueeze(1) if x.ndim == 3 else x.permute(0, 3, 1, 2)).to(
        torch.float32, memory_format=torch.contiguous_format
    )
    shape = (1, -1, 1, 1)
    x.div_(255.0).sub_(torch.tensor(images.mean).view(shape)).div_(torch.tensor(images.std).view(shape))
    return Split(x, torch.as_tensor(found.targets, dtype=torch.int64))


def _torchvision_dataset(images: ImageSet, root: Path, *, train: bool, download: bool = False) -> Any:
    # imported here because the import takes 3.7 s
    import torchvision

    with warnings.catch_warnings():
        # CIFAR10's pickles of 2009 make newer versions of numpy warn, and a user cannot change that
        warnings.simplefilter("ignore")
        return getattr(torchvision.datasets, images.torchvision_name)(root, train=train, download=download)


def _download(images: ImageSet, root: Path, place: str) -> None:
    # torchvision prints its progress to stdout, which is reserved for the output of the CLI command
    with contextlib.redirect_stdout(sys.stderr):
        try:
            _torchvision_dataset(images, root, train=True, download=True)
        except Exception as failure:
            raise DataError(
                f"{place}: could not be downloaded into {root.absolute()}: {error_line(failure)}. "
                "Download it on another machine, then set the data directory with --data-dir PATH"
            ) from failure


def _check_idx_files(folder: Path, place: str) -> None:
    """Raise DataError for the first file that is missing, truncated or of another format than its name says."""
    for part in ("train", "t10k"):
        for kind, dimensions in (("images-idx3-ubyte", 3), ("labels-idx1-ubyte", 1)):
            path = folder / f"{part}-{kind}"
            if not path.is_file():
                raise DataError(
                    f"{place}: the file {path.absolute()} is missing. "
                    "Set another data directory with --data-dir PATH, or download the files with --download"
                )
            _check_idx(path, dimensions, place)


def _check_idx(path: Path, dimensions: int, place: str) -> None:
    length = 4 * (1 + dimensions)
    try:
        with path.open("rb") as file:
            head = file.read(length)
        size = path.stat().st_size
    except OSError as failure:
        raise DataError(f"{place}: {path.absolute()} cannot be read: {error_line(failure)}") from failure
    # idx: two zero bytes, 8 for unsigned bytes, the number of dimensions; then each dimension, big endian
    if len(head) < length or head[:4] != bytes((0, 0, 8, dimensions)):
        raise DataError(f"{place}: {path.absolute()} is corrupt: it has no header of an idx file of bytes")
    shape = [int.from_bytes(head[4 * i : 4 * i + 4], "big") for i in range(1, dimensions + 1)]
    if size != length + math.prod(shape):
        raise DataError(
            f"{place}: {path.absolute()} is corrupt: its header declares {length + math.prod(shape)} bytes, "
            f"but it has {size}"
        )
