"""Build the native code at first use and keep it for every later process. Knows compilers; must not know tensors.

The library is in the user's cache directory: `NASACT_CACHE_DIR`, else `nasact` under `XDG_CACHE_HOME` or `~/.cache`.
Its name holds digests of the source with the flags and the processor, and of its own content. It is written to a
temporary directory and moved into place, by one process at a time, so that parallel workers neither race nor read a
partial file. A library that was damaged later is built again.
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
"""Limit for a compiler's run, and for waiting for another process that builds the library."""

_BASE = ("-std=c++17", "-O3", "-fPIC")
# Best flags first. OpenMP is compiled in but not linked: its symbols come from torch, so that there is one thread pool.
_FLAGS = (("-march=native", "-fopenmp"), ("-mcpu=native", "-fopenmp"), ("-fopenmp",), ("-march=native",), ())


class BuildError(Exception):
    """There is no compiler, or it cannot compile the native code; the message gives the reason in one line."""


def compiler() -> list[str]:
    """The command of the C++ compiler: `CXX` (empty: no compiler), else the first of c++, g++, clang++ on the PATH.

    BuildError where there is none.
    """
    named = os.environ.get("CXX")
    if named is None:
        for name in ("c++", "g++", "clang++"):
            if found := shutil.which(name):
                return [found]
        raise BuildError("there is no C++ compiler: install c++, g++ or clang++, or name another in CXX")
    words = shlex.split(named)
    if not words:
        raise BuildError("CXX is empty, which forbids a C++ compiler")
    program = shutil.which(words[0])
    if program is None:
        raise BuildError(f"the C++ compiler that CXX names, {words[0]!r}, does not exist")
    return [program, *words[1:]]


def cache_directories() -> list[Path]:
    """Directories that are searched for the library; it is built in the last one.

    The last one is the user's cache or, where that cannot be written, a directory of this user under the temporary one.
    """
    named = os.environ.get("NASACT_CACHE_DIR")
    directories = []
    try:
        base = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "nasact"
        base = base.expanduser()
        directories.append(base)
        base.mkdir(parents=True, exist_ok=True)
        if os.access(base, os.W_OK):
            return directories
    except (OSError, RuntimeError):  # RuntimeError: there is no home directory
        pass
    temporary = Path(tempfile.gettempdir()) / f"nasact-{os.getuid()}"
    temporary.mkdir(mode=0o700, exist_ok=True)
    if temporary.lstat().st_uid != os.getuid():
        raise BuildError(f"{temporary} belongs to another user")
    return [*directories, temporary]


def build() -> Path:
    """Return the path of the library, compiled if it does not exist yet. BuildError or OSError if that fails."""
    directories, names = cache_directories(), _library_names()
    library = next((path for place in directories for name in names if (path := _find_intact(place, name))), None)
    if library is not None:
        return library
    program, directory = compiler(), directories[-1]
    reason = ""
    with _build_lock(directory / "build.lock") as locked:
        for stale in directory.glob("building-*") if locked else ():  # left by a process that was killed
            shutil.rmtree(stale, ignore_errors=True)
        until = time.monotonic() + SECONDS
        for flags, name in zip(_FLAGS, names, strict=True):
            library = _find_intact(directory, name)  # built by the process that held the lock
            if library is not None:
                return library
            try:
                return _compile(program, flags, directory, name, until)
            except _FlagsFailed as failed:
                reason = str(failed)
    raise BuildError(f"{program[0]} cannot compile it: {reason}")


def _library_names() -> list[str]:
    """The library's name for each set of flags, without the digest of its content."""
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


def _content_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _find_intact(directory: Path, name: str) -> Path | None:
    """The library of that name if its content matches its digest: loading a damaged one can kill the process."""
    with suppress(OSError):
        for path in sorted(directory.glob(f"{name}-*.so")):
            if path.stem == f"{name}-{_content_digest(path)}":
                return path
    return None


def _processor() -> str:
    """A text that identifies the processor as far as `-march=native` depends on it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    keys = ("flags", "Features", "model name", "CPU part")
    described = {line for line in lines if line.partition(":")[0].strip() in keys}
    return "\n".join((platform.machine(), *sorted(described)))


class _FlagsFailed(Exception):
    """The compiler failed with these flags; it may succeed with others."""


def _compile(program: list[str], flags: tuple[str, ...], directory: Path, name: str, until: float) -> Path:
    with tempfile.TemporaryDirectory(dir=directory, prefix="building-", ignore_cleanup_errors=True) as room:
        objects, library = Path(room) / "mixture.o", Path(room) / "mixture.so"
        _run([*program, *_BASE, *flags, "-c", str(SOURCES / "mixture.cpp"), "-o", str(objects)], until)
        _run([*program, "-shared", str(objects), "-o", str(library)], until)
        if not library.is_file():
            raise _FlagsFailed("it wrote no library")
        try:
            ctypes.CDLL(str(library), mode=os.RTLD_NOW | os.RTLD_LOCAL)
        except OSError as error:
            reason = str(error).partition("\n")[0]
            if "map segment" in reason:  # the file system forbids executable code, with any flags
                raise BuildError(reason) from None
            raise _FlagsFailed(reason) from None
        for damaged in directory.glob(f"{name}-*.so"):
            damaged.unlink(missing_ok=True)
        return library.replace(directory / f"{name}-{_content_digest(library)}.so")


def _run(command: list[str], until: float) -> None:
    """Run a command; after a timeout or an interrupt, kill it with all processes that it started."""
    try:
        running = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        raise BuildError(f"{command[0]} cannot be run: {error.strerror}") from None
    with running:
        try:
            _, output = running.communicate(timeout=max(0.0, until - time.monotonic()))
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise BuildError(f"{command[0]} took longer than {SECONDS} seconds") from None
            raise
    if running.returncode:
        lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
        reason = next((line for line in lines if "error" in line), lines[0] if lines else "no error output")
        raise _FlagsFailed(f"{reason[:200]} (exit status {running.returncode})")


@contextmanager
def _build_lock(lock: Path) -> Iterator[bool]:
    """Wait until no other process builds, and hold the lock. The system releases the lock of a killed process.

    Yields False where the file system has no locks: then two processes may both build, and each moves a complete
    library into place.
    """
    import fcntl  # does not exist on Windows; the ImportError means that there is no native code

    until, locked = time.monotonic() + SECONDS, False
    with lock.open("w") as file:
        while not locked:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked = True
            except BlockingIOError:
                if time.monotonic() > until:
                    raise BuildError(f"another process has been building it for {SECONDS} seconds") from None
                time.sleep(0.02)
            except OSError:
                break
        yield locked
