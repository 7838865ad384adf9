"""MNIST, FashionMNIST, KMNIST and CIFAR10 in torchvision's layout, as normalised tensors in memory.

torchvision does the reading and the downloading; this file says what is missing or broken, and where.
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
from nasact.tasks.raw_dataset import Source
from nasact.tasks.split import Split, TestSet

DEFAULT_DATA_DIR = Path("data")


@dataclass(frozen=True, kw_only=True)
class VisionSet:
    """One dataset of torchvision: its class, its folder under the data directory, mean and std of its training set."""

    name: str
    torchvision_name: str
    folder: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def normalisation(self) -> str:
        mean, std = ("/".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        return f"(value / 255 - {mean}) / {std}"


VISION_SETS = (
    VisionSet(name="mnist", torchvision_name="MNIST", folder="MNIST/raw", mean=(0.1307,), std=(0.3081,)),
    VisionSet(
        name="fashion_mnist", torchvision_name="FashionMNIST", folder="FashionMNIST/raw", mean=(0.2860,), std=(0.3530,)
    ),
    VisionSet(name="kmnist", torchvision_name="KMNIST", folder="KMNIST/raw", mean=(0.1918,), std=(0.3483,)),
    VisionSet(
        name="cifar10",
        torchvision_name="CIFAR10",
        folder="cifar-10-batches-py",
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    ),
)


def loader(vision: VisionSet) -> Callable[..., Source]:
    """The `load` of a dataset record."""

    def load(*, data_dir: Path | None, download: bool) -> Source:
        root = (data_dir or DEFAULT_DATA_DIR).expanduser()
        train = _read(vision, root, train=True, download=download)
        return Source(train=train, test=TestSet(partial(_read, vision, root, train=False)), classes=10)

    return load


def _read(vision: VisionSet, root: Path, *, train: bool, download: bool = False) -> Split:
    place = f"dataset {vision.name!r}"
    folder = root / vision.folder
    if download:
        _download(vision, root, place)
    if not folder.is_dir():
        raise DataError(
            f"{place}: not found, looked for the folder {folder.absolute()}. "
            "Name the folder it lies in with --data-dir PATH, or fetch it with --download"
        )
    if vision.folder.endswith("raw"):
        _check_idx_files(folder, place)
    try:
        found = _torchvision(vision, root, train=train)
    except Exception as failure:
        raise DataError(f"{place}: the files in {folder.absolute()} cannot be read: {error_line(failure)}") from failure
    x = torch.as_tensor(found.data)
    # CIFAR10 comes as N x 32 x 32 x 3, the others without a channel
    x = (x.unsqueeze(1) if x.ndim == 3 else x.permute(0, 3, 1, 2)).to(
        torch.float32, memory_format=torch.contiguous_format
    )
    shape = (1, -1, 1, 1)
    x.div_(255.0).sub_(torch.tensor(vision.mean).view(shape)).div_(torch.tensor(vision.std).view(shape))
    return Split(x, torch.as_tensor(found.targets, dtype=torch.int64))


def _torchvision(vision: VisionSet, root: Path, *, train: bool, download: bool = False) -> Any:
    # 3.7 s to import: not before it is needed
    import torchvision

    with warnings.catch_warnings():
        # CIFAR10's pickles of 2009 make newer versions of numpy warn; nothing a user could do about it
        warnings.simplefilter("ignore")
        return getattr(torchvision.datasets, vision.torchvision_name)(root, train=train, download=download)


def _download(vision: VisionSet, root: Path, place: str) -> None:
    # torchvision prints its progress, and stdout belongs to the caller
    with contextlib.redirect_stdout(sys.stderr):
        try:
            _torchvision(vision, root, train=True, download=True)
        except Exception as failure:
            raise DataError(
                f"{place}: could not be downloaded into {root.absolute()}: {error_line(failure)}. "
                "Fetch it elsewhere, and name the folder it lies in with --data-dir PATH"
            ) from failure


def _check_idx_files(folder: Path, place: str) -> None:
    """DataError that names the first file that is missing, cut short or not what its name says."""
    for part in ("train", "t10k"):
        for kind, dimensions in (("images-idx3-ubyte", 3), ("labels-idx1-ubyte", 1)):
            path = folder / f"{part}-{kind}"
            if not path.is_file():
                raise DataError(
                    f"{place}: the file {path.absolute()} is missing. "
                    "Name another folder with --data-dir PATH, or fetch it with --download"
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
        raise DataError(f"{place}: {path.absolute()} is corrupt: it does not begin as an idx file of bytes")
    shape = [int.from_bytes(head[4 * i : 4 * i + 4], "big") for i in range(1, dimensions + 1)]
    if size != length + math.prod(shape):
        raise DataError(
            f"{place}: {path.absolute()} is corrupt: its header announces {length + math.prod(shape)} bytes, "
            f"but it has {size}"
        )
