"""Fixtures: real data if it is available, small files in the same formats otherwise, and modules of a user."""

from __future__ import annotations

import itertools
import os
import tarfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nasact.training.seeds import capture_rng

_COUNTER = itertools.count()
CIFAR_TAR = "cifar10-jpeg.tar"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real datasets: $NASACT_TEST_DATA, or `shared/data` next to the checkout."""
    configured = os.environ.get("NASACT_TEST_DATA")
    folder = Path(configured) if configured else Path(__file__).resolve().parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not a folder (set NASACT_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def real_images(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few CIFAR10 photographs of three classes, as train/ and test/ with one folder per class."""
    archive = real_data / CIFAR_TAR
    if not archive.is_file():
        pytest.skip(f"no real images: {archive} is missing")
    root = tmp_path_factory.mktemp("cifar")
    wanted = tuple(f"{part}/{label}/00" for part in ("train", "test") for label in ("airplane", "cat", "truck"))
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and member.name.startswith(wanted) and int(Path(member.name).stem) < 20:
                tar.extract(member, root, filter="data")
    return root


def write_idx(path: Path, values: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    """Write an idx file of unsigned bytes, the format of MNIST."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = bytes((0, 0, 8, values.ndim)) + b"".join(int(size).to_bytes(4, "big") for size in values.shape)
    path.write_bytes(head + values.tobytes())


@pytest.fixture
def idx_folder(tmp_path: Path) -> Callable[[str], Path]:
    """A function that writes a small dataset in torchvision's MNIST layout and returns the data directory."""

    def write(torchvision_name: str) -> Path:
        numbers = np.random.default_rng(0)
        for part, count in (("train", 60), ("t10k", 30)):
            raw = tmp_path / torchvision_name / "raw"
            write_idx(raw / f"{part}-images-idx3-ubyte", numbers.integers(0, 256, (count, 28, 28), dtype=np.uint8))
            write_idx(raw / f"{part}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8))
        return tmp_path

    return write


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """A function that writes a module into the working directory and returns its name, which is unique."""
    monkeypatch.chdir(tmp_path)

    def write(source: str) -> str:
        name = f"own_code_{next(_COUNTER)}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        return name

    return write


@pytest.fixture
def global_random_state_unchanged() -> Iterator[None]:
    """Fail a test that changes the global random state of Python, numpy or torch."""
    before = _global_random_state()
    yield
    assert _global_random_state() == before, "the global random state was changed"


def _global_random_state() -> str:
    return "".join(repr(leaf.tolist() if isinstance(leaf, torch.Tensor) else leaf) for leaf in _leaves(capture_rng()))


def _leaves(state: object) -> Iterator[object]:
    values = state.values() if isinstance(state, dict) else state if isinstance(state, tuple | list) else None
    if values is None:
        yield state
    else:
        for value in values:
            yield from _leaves(value)
