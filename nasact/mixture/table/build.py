"""Builds the native code at first use and keeps it for every later process. Knows compilers; no tensors.

The library lies in the user's cache directory (`NASACT_CACHE_DIR`, else `XDG_CACHE_HOME` or `~/.cache`, under `nasact`)
under a name made of the source, the flags and the processor. It is written beside and moved into place, one process at
a time, so parallel workers neither race nor see half of it.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCES = Path(__file__).parent / "native"
SECONDS = 120
"""A compiler that takes longer than this is given up."""

_BASE = ("-std=c++17", "-O3", "-fPIC", "-shared")
# The best first. OpenMP is compiled in but not linked: its symbols are torch's own, so that there is one thread pool.
_FLAGS = (("-march=native", "-fopenmp"), ("-mcpu=native", "-fopenmp"), ("-fopenmp",), ("-march=native",), ())


class CannotBuild(Exception):
    """No compiler, or none that can compile the native code; the text says which."""


def compiler() -> str | None:
    """The C++ compiler: `CXX` if that is set (empty: none), else the first of c++, g++, clang++ on the PATH."""
    named = os.environ.get("CXX")
    if named is not None:
        return shutil.which(named) if named else None
    return next((found for name in ("c++", "g++", "clang++") if (found := shutil.which(name))), None)


def cache_directory() -> Path:
    """Where built code is kept; one's own under the temporary directory where that is read-only."""
    named = os.environ.get("NASACT_CACHE_DIR")
    base = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nasact"
    try:
        base.mkdir(parents=True, exist_ok=True)
        if os.access(base, os.W_OK):
            return base
    except (OSError, RuntimeError):
        pass
    own = Path(tempfile.gettempdir()) / f"nasact-{os.getuid()}"
    own.mkdir(mode=0o700, exist_ok=True)
    if own.stat().st_uid != os.getuid():
        raise CannotBuild(f"{own} belongs to somebody else")
    return own


def build() -> list[Path]:
    """The libraries to try, the best first, compiled unless they are there. CannotBuild where there is none."""
    directory = cache_directory()
    made = [directory / _name(flags) for flags in _FLAGS]
    there = [path for path in made if path.exists()]
    if there:
        return there
    program = compiler()
    if program is None:
        raise CannotBuild("there is no C++ compiler (c++, g++ or clang++; CXX names another)")
    reasons = []
    with _alone(directory / "build.lock"):
        for flags, path in zip(_FLAGS, made, strict=True):
            reason = None if path.exists() else _compile(program, flags, path)
            if reason is None:
                return [path]
            reasons.append(reason)
    raise CannotBuild(f"{program} cannot compile it: {reasons[-1]}")


def _name(flags: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for source in sorted(SOURCES.iterdir()):
        if source.suffix in (".h", ".cpp"):
            digest.update(source.read_bytes())
    digest.update(" ".join((*_BASE, *flags)).encode())
    digest.update(_processor().encode())
    return f"mixture-{digest.hexdigest()[:16]}.so"


def _processor() -> str:
    """What `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    told = {line for line in lines if line.partition(":")[0].strip() in ("flags", "Features", "model name", "CPU part")}
    return "\n".join((platform.machine(), *sorted(told)))


def _compile(program: str, flags: tuple[str, ...], path: Path) -> str | None:
    """Compile to `path`; the reason where that fails."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="building-") as room:
        objects, library = Path(room) / "mixture.o", Path(room) / "mixture.so"
        steps = (
            [program, *_BASE[:-1], *flags, "-c", str(SOURCES / "mixture.cpp"), "-o", str(objects)],
            [program, "-shared", str(objects), "-o", str(library)],
        )
        for step in steps:
            try:
                done = subprocess.run(step, capture_output=True, text=True, timeout=SECONDS, check=False)
            except (OSError, subprocess.TimeoutExpired) as error:
                return str(error)
            if done.returncode:
                return next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[:200])
        try:
            ctypes.CDLL(str(library), mode=os.RTLD_NOW | os.RTLD_LOCAL)
        except OSError as error:
            return str(error)
        library.replace(path)
    return None


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
