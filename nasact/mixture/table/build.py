"""Builds the native code at first use and keeps it for every later process. Knows compilers; no tensors.

The library lies in the user's cache directory (`NASACT_CACHE_DIR`, else `XDG_CACHE_HOME` or `~/.cache`, under `nasact`)
under a name made of the source, the flags, the processor and its own content. It is written beside and moved into
place, one process at a time, so parallel workers neither race nor see half of it; what was damaged since is built anew.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SOURCES = Path(__file__).parent / "native"
SECONDS = 60
"""A compiler that takes longer than this is given up, and so is waiting for another process that builds."""

_BASE = ("-std=c++17", "-O3", "-fPIC")
# The best first. OpenMP is compiled in but not linked: its symbols are torch's own, so that there is one thread pool.
_FLAGS = (("-march=native", "-fopenmp"), ("-mcpu=native", "-fopenmp"), ("-fopenmp",), ("-march=native",), ())


class CannotBuild(Exception):
    """No compiler, or none that can compile the native code; the text says which, in one line."""


def compiler() -> list[str]:
    """The C++ compiler: the command that `CXX` holds (empty: none), else the first of c++, g++, clang++ on the PATH."""
    named = os.environ.get("CXX")
    if named is None:
        for name in ("c++", "g++", "clang++"):
            if found := shutil.which(name):
                return [found]
        raise CannotBuild("there is no C++ compiler (c++, g++ or clang++; CXX names another)")
    words = shlex.split(named)
    if not words:
        raise CannotBuild("CXX is empty: no C++ compiler is to be used")
    program = shutil.which(words[0])
    if program is None:
        raise CannotBuild(f"the C++ compiler that CXX names, {words[0]!r}, is not there")
    return [program, *words[1:]]


def cache_directories() -> list[Path]:
    """Where built code is looked for; it is built in the last: one's own under the temporary directory where the
    user's cache cannot be written."""
    named = os.environ.get("NASACT_CACHE_DIR")
    found = []
    try:
        base = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "nasact"
        base = base.expanduser()
        found.append(base)
        base.mkdir(parents=True, exist_ok=True)
        if os.access(base, os.W_OK):
            return found
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        pass
    own = Path(tempfile.gettempdir()) / f"nasact-{os.getuid()}"
    own.mkdir(mode=0o700, exist_ok=True)
    if own.lstat().st_uid != os.getuid():
        raise CannotBuild(f"{own} belongs to somebody else")
    return [*found, own]


def build() -> Path:
    """The library, compiled unless it is there. CannotBuild, or OSError, where there is none."""
    directories, names = cache_directories(), _names()
    found = next((path for place in directories for name in names if (path := _sound(place, name))), None)
    if found is not None:
        return found
    program, directory = compiler(), directories[-1]
    reason = ""
    with _alone(directory / "build.lock") as alone:
        for stale in directory.glob("building-*") if alone else ():  # of a process that was killed
            shutil.rmtree(stale, ignore_errors=True)
        until = time.monotonic() + SECONDS
        for flags, name in zip(_FLAGS, names, strict=True):
            found = _sound(directory, name)  # of the process that was waited for
            if found is not None:
                return found
            try:
                return _compile(program, flags, directory, name, until)
            except _Failed as failed:
                reason = str(failed)
    raise CannotBuild(f"{program[0]} cannot compile it: {reason}")


def _names() -> list[str]:
    """What the library is called, but for its content, with each of the flags."""
    common = hashlib.sha256(_processor().encode())
    for source in sorted(SOURCES.iterdir()):
        if source.suffix in (".h", ".cpp"):
            common.update(source.read_bytes())
    names = []
    for flags in _FLAGS:
        digest = common.copy()
        digest.update(" ".join((*_BASE, *flags)).encode())
        names.append(f"mixture-{digest.hexdigest()[:16]}")
    return names


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _sound(directory: Path, name: str) -> Path | None:
    """The library of that name whose content is what it was: to load half of one can kill the process."""
    with suppress(OSError):
        for path in sorted(directory.glob(f"{name}-*.so")):
            if path.stem == f"{name}-{_content(path)}":
                return path
    return None


def _processor() -> str:
    """What `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    told = {line for line in lines if line.partition(":")[0].strip() in ("flags", "Features", "model name", "CPU part")}
    return "\n".join((platform.machine(), *sorted(told)))


class _Failed(Exception):
    """These flags do not do; others may."""


def _compile(program: list[str], flags: tuple[str, ...], directory: Path, name: str, until: float) -> Path:
    with tempfile.TemporaryDirectory(dir=directory, prefix="building-", ignore_cleanup_errors=True) as room:
        objects, library = Path(room) / "mixture.o", Path(room) / "mixture.so"
        _run([*program, *_BASE, *flags, "-c", str(SOURCES / "mixture.cpp"), "-o", str(objects)], until)
        _run([*program, "-shared", str(objects), "-o", str(library)], until)
        if not library.is_file():
            raise _Failed("it wrote no library")
        try:
            ctypes.CDLL(str(library), mode=os.RTLD_NOW | os.RTLD_LOCAL)
        except OSError as error:
            reason = str(error).partition("\n")[0]
            if "map segment" in reason:  # no code may be run from this file system: no flag helps
                raise CannotBuild(reason) from None
            raise _Failed(reason) from None
        for damaged in directory.glob(f"{name}-*.so"):
            damaged.unlink(missing_ok=True)
        return library.replace(directory / f"{name}-{_content(library)}.so")


def _run(command: list[str], until: float) -> None:
    """Run it to its end, or end it with everything that it started."""
    try:
        running = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        raise CannotBuild(f"{command[0]} cannot be run: {error.strerror}") from None
    with running:
        try:
            _, said = running.communicate(timeout=max(0.0, until - time.monotonic()))
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise CannotBuild(f"{command[0]} took longer than {SECONDS} seconds") from None
            raise
    if running.returncode:
        lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
        told = next((line for line in lines if "error" in line), lines[0] if lines else "it says nothing")
        raise _Failed(f"{told[:200]} (exit status {running.returncode})")


@contextmanager
def _alone(lock: Path) -> Iterator[bool]:
    """Wait for other processes that build. The system lets go of the lock of a process that was killed.

    False where the file system has no locks: built twice at worst, each moved into place whole.
    """
    import fcntl  # not everywhere: where it is missing there is no native code

    until, held = time.monotonic() + SECONDS, False
    with lock.open("w") as file:
        while not held:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = True
            except BlockingIOError:
                if time.monotonic() > until:
                    raise CannotBuild(f"another process has been building it for {SECONDS} seconds") from None
                time.sleep(0.02)
            except OSError:
                break
        yield held
