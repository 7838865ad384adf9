"""CIFAR-10 in a folder, as torchvision's files or as a tar of JPEG files, and its name in a study.

Knows files only.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import Any

CLASSES = 10


def cifar10_dataset(data_dir: Path, runs: Path, images: int) -> dict[str, Any] | str:
    """Return the data set as `task.dataset` of a study.

    If `data_dir` holds cifar10-jpeg.tar, its test images and its first `images` training images are unpacked into
    `runs`.
    """
    packed, folder = data_dir / "cifar10-jpeg.tar", runs / f"cifar10-{images}"
    if not packed.is_file():
        return "cifar10"
    if not folder.is_dir():
        unfinished = folder.with_name(f"{folder.name}-unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        counts: dict[str, int] = {}
        with tarfile.open(packed) as tar:
            for member in filter(tarfile.TarInfo.isfile, tar):
                class_folder, _, _ = member.name.rpartition("/")
                counts[class_folder] = counts.get(class_folder, 0) + 1
                if class_folder.startswith("test/") or counts[class_folder] <= images // CLASSES:
                    tar.extract(member, unfinished, filter="data")
        unfinished.rename(folder)
    return {"name": "image_folder", "path": str(folder)}
