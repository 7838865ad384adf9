"""CIFAR-10 as a study names it, from what lies in a directory: torchvision's files, or a tar of JPEG files.

Knows files alone.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import Any

CLASSES = 10


def cifar10(data_dir: Path, room: Path, images: int) -> dict[str, Any] | str:
    """The data set as a study names it; a tar of JPEG files is unpacked into `room`, with its first training images."""
    packed, here = data_dir / "cifar10-jpeg.tar", room / f"cifar10-{images}"
    if not packed.is_file():
        return "cifar10"
    if not here.is_dir():
        halfway = here.with_name(f"{here.name}-halfway")
        shutil.rmtree(halfway, ignore_errors=True)
        counts: dict[str, int] = {}
        with tarfile.open(packed) as tar:
            for member in filter(tarfile.TarInfo.isfile, tar):
                folder, _, _ = member.name.rpartition("/")
                counts[folder] = counts.get(folder, 0) + 1
                if folder.startswith("test/") or counts[folder] <= images // CLASSES:
                    tar.extract(member, halfway, filter="data")
        halfway.rename(here)
    return {"name": "image_folder", "path": str(here)}
