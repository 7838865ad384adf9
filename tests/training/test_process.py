"""What a process of nasact's own does to itself: threads, and memory that stays with it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from nasact.training.process import keep_freed_memory

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is not glibc's")

FAULTS = """
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
    kept = [malloc(1 << 20) for _ in range(64)]
    for block in kept:
        ctypes.memset(block, 1, 1 << 20)
    for block in reversed(kept):
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
    usual = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, *arguments], env={**usual, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    faults, told = done.stdout.split()
    return int(faults), told == "True"


@glibc
def test_memory_that_was_freed_is_not_fetched_from_the_system_again() -> None:
    settled, told = run("configure_process")
    assert told
    usual, _ = run()
    assert settled < usual / 10, f"{settled} page faults against {usual}"


@glibc
@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_whoever_has_set_malloc_up_is_not_overruled(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert keep_freed_memory() is False
