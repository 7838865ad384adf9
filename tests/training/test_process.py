"""A process of nasact sets its number of threads and keeps freed memory."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from nasact.training.process import keep_freed_memory

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is not glibc's")

COUNT_PAGE_FAULTS = """
import ctypes, resource, sys, torch
from nasact.training.process import keep_freed_memory, configure_process
if "configure_process" in sys.argv:
    configure_process(1)
    assert torch.get_num_threads() == 1
malloc = ctypes.CDLL(None).malloc
malloc.restype = ctypes.c_void_p
free = ctypes.CDLL(None).free
free.argtypes = [ctypes.c_void_p]
def step():
    blocks = [malloc(1 << 20) for _ in range(64)]
    for block in blocks:
        ctypes.memset(block, 1, 1 << 20)
    for block in reversed(blocks):
        free(block)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    step()
before = faults()
for _ in range(5):
    step()
print(faults() - before, keep_freed_memory())
"""


def run(*arguments: str, **environment: str) -> tuple[int, bool]:
    """Page faults of five steps, and whether malloc accepted the settings."""
    default = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run(
        [sys.executable, "-c", COUNT_PAGE_FAULTS, *arguments],
        env={**default, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    faults, accepted = done.stdout.split()
    return int(faults), accepted == "True"


@needs_glibc
def test_freed_memory_is_reused_without_page_faults() -> None:
    configured, accepted = run("configure_process")
    assert accepted
    default, _ = run()
    assert configured < default / 10, f"{configured} page faults, {default} by default"


@needs_glibc
@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_malloc_settings_of_the_environment_are_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert keep_freed_memory() is False
