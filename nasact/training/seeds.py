"""Random numbers: seeds that are derived by name, and a separate random stream for each training run.

Knows the generators of torch, numpy and python; must not know what is trained. The number of threads is set elsewhere
(`process`).
"""

from __future__ import annotations

import hashlib
import random
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

RngState = dict[str, Any]


def derive_seed(seed: int, *names: object) -> int:
    """A seed in [0, 2^63) for the purpose called `names`; the same in every process and on every machine."""
    text = "\x1f".join([str(int(seed)), *(str(name) for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: object) -> torch.Generator:
    """A new CPU generator for the purpose called `names`."""
    return torch.Generator().manual_seed(derive_seed(seed, *names))


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch, and every CUDA device."""
    random.seed(seed)
    # users' models draw from numpy's legacy generator, so this is the generator to seed
    np.random.set_state(np.random.RandomState(seed % 2**32).get_state())  # noqa: NPY002
    torch.manual_seed(seed)


def capture_rng() -> RngState:
    """The state of every global generator, as tensors and plain values only, so that it loads with `weights_only`."""
    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    cuda: list[Tensor] = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {
        "python": random.getstate(),
        "numpy": (str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": cuda,
    }


def restore_rng(state: RngState) -> None:
    """Restore every global generator to a state of `capture_rng`."""
    random.setstate(state["python"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])


class RandomStream:
    """The global random numbers of one run: `with stream:` installs their state, and restores the caller's at the end.

    Code that runs between two epochs (a sampler, a progress bar) therefore neither affects the run nor is affected.
    """

    def __init__(self, seed: int) -> None:
        outside = capture_rng()
        seed_everything(seed)
        self._inside = capture_rng()
        restore_rng(outside)
        self._outside: RngState | None = None

    def __enter__(self) -> RandomStream:
        self._outside = capture_rng()
        restore_rng(self._inside)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inside = capture_rng()
        if self._outside is not None:
            restore_rng(self._outside)
        self._outside = None

    def state_dict(self) -> RngState:
        return self._inside

    def load_state_dict(self, state: RngState) -> None:
        self._inside = state
