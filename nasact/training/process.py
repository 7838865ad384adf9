"""Settings of a process that only nasact uses: its number of threads, and how malloc keeps freed memory."""

from __future__ import annotations

import ctypes
import os
import platform

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_MAX_FREE_BYTES = 1 << 30
_MAX_REUSED_BYTES = 1 << 25


def configure_process(threads: int) -> None:
    """Compute in `threads` threads, and keep freed memory for the next step. Only for processes that nasact owns."""
    torch.set_num_threads(threads)
    keep_freed_memory()


def keep_freed_memory() -> bool:
    """Let malloc keep the memory of freed tensors of up to 32 MiB, at most 1 GiB; return whether it accepted that.

    glibc would return the memory to the system at every step, and the system would clear it page by page for the next
    step. Changes nothing without glibc, or if the environment already configures malloc.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return (
        mallopt is not None
        and bool(mallopt(_M_TRIM_THRESHOLD, _MAX_FREE_BYTES))
        and bool(mallopt(_M_MMAP_THRESHOLD, _MAX_REUSED_BYTES))
    )
