"""How a process of nasact's own uses its machine: its threads, and the memory that it holds on to."""

from __future__ import annotations

import ctypes
import os
import platform

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT = 1 << 30
_LARGEST = 1 << 25


def configure_process(threads: int) -> None:
    """Compute in `threads` threads, and keep freed memory for the next step. For processes that are nasact's alone."""
    torch.set_num_threads(threads)
    keep_freed_memory()


def keep_freed_memory() -> bool:
    """Tensors of up to 32 MiB leave their memory with the process, up to 1 GiB; returns whether malloc was told so.

    glibc would give it back to the system at every step, which then clears it page by page for the next. Whoever has
    set malloc up in the environment is not overruled.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    tell = getattr(ctypes.CDLL(None), "mallopt", None)
    return tell is not None and bool(tell(_TRIM_THRESHOLD, _KEPT)) and bool(tell(_MMAP_THRESHOLD, _LARGEST))
