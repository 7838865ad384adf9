"""The native code is built once, by the first process that needs it, and no failure of the build stops the op.

The compilers are real ones or small scripts given as CXX. A script "compiles" by copying the library of this process.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from kernel_nets import distance
from torch import Tensor

from nasact.mixture import Bank, Layout
from nasact.mixture.table import build, native

CPU, F32 = torch.device("cpu"), torch.float32
NAMES = ("relu", "tanh", "sigmoid", "identity", "silu", "gelu", "elu")

needs_compiler = pytest.mark.skipif(isinstance(native.load(), str), reason=f"no native code here: {native.load()}")


def gradients(bank: Bank, x: Tensor, weights: Tensor) -> list[Tensor]:
    x, weights = x.detach().requires_grad_(), weights.detach().requires_grad_()
    y = bank(x, weights)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), (x, weights))]


def assert_op_is_correct(kernel: str = "auto", level: str = "layer") -> None:
    """Assert that the op gives the reference's numbers, in native code or in plain torch."""
    torch.manual_seed(0)
    layout = Layout(level=level, shape={"layer": (), "channel": (3,), "neuron": (3, 50)}[level])
    x, weights = 3 * torch.randn(40, 3, 50), torch.rand(*layout.shape, len(NAMES))
    true = gradients(Bank(NAMES, layout, kernel="reference"), x.double(), weights.double())
    assert distance(gradients(Bank(NAMES, layout, kernel=kernel), x, weights), true) < 1e-5


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that makes the state of a new process with an empty cache: no library, no warning given yet.

    That function takes the compiler and returns the cache.
    """

    def begin(cxx: str | Path | None = None) -> Path:
        monkeypatch.setattr(native, "load", lru_cache(maxsize=1)(native.load.__wrapped__))
        monkeypatch.setattr(native, "_warnings", itertools.count())
        monkeypatch.setenv("NASACT_CACHE_DIR", str(tmp_path / "cache"))
        if cxx is not None:
            monkeypatch.setenv("CXX", str(cxx))
        return tmp_path / "cache"

    return begin


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    """A compiler that takes NAP seconds (default 0), copies the library compiled before, and records every call."""
    library = build.build()
    return script(
        tmp_path / "quick",
        f'echo x >>"{tmp_path}/calls"\nsleep ${{NAP:-0}}\nwhile [ "$1" != -o ]; do shift; done\ncp "{library}" "$2"',
    )


def calls(tmp_path: Path) -> int:
    return len((tmp_path / "calls").read_text().splitlines())


def built(cache: Path) -> list[Path]:
    """The libraries in the cache; asserts that only the lock is there besides them."""
    assert {path.suffix for path in cache.iterdir()} <= {".so", ".lock"}
    return list(cache.glob("*.so"))


# ---- once -----------------------------------------------------------------------------------------------------------

WORKER = """
import torch
from nasact.mixture import Bank, Layout
bank = Bank(("relu", "tanh"), Layout())
assert str(bank.choose(torch.device("cpu"), torch.float32)) == "table: float32 on a CPU, in native code"
print(bank(torch.tensor([0.5, -1.0]), torch.tensor([0.25, 0.75])).tolist())
"""


@needs_compiler
@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_four_processes_at_once_build_it_once(real: bool, quick: Path, tmp_path: Path) -> None:
    compiler = " ".join(build.compiler())
    if real:
        script(quick, f'echo x >>"{tmp_path}/calls"\nexec {compiler} "$@"')
    environment = {**os.environ, "NASACT_CACHE_DIR": str(tmp_path / "cache"), "CXX": str(quick), "NAP": "2"}
    command, pipe = [sys.executable, "-W", "error", "-c", WORKER], subprocess.PIPE
    workers = [subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe) for _ in range(4)]
    answers = [worker.communicate(timeout=120) for worker in workers]
    assert [error for _, error in answers] == [b""] * 4
    assert len({answer for answer, _ in answers}) == 1
    assert len(built(tmp_path / "cache")) == 1
    assert calls(tmp_path) == 2, "one call compiles, one links"


@needs_compiler
def test_a_later_process_builds_nothing(fresh: Callable[..., Path], quick: Path, tmp_path: Path) -> None:
    cache = fresh(quick)
    assert_op_is_correct()
    fresh("")  # no compiler any more
    assert_op_is_correct()
    assert (len(built(cache)), calls(tmp_path)) == (1, 2)


@needs_compiler
def test_the_library_is_found_in_a_cache_that_cannot_be_written(
    fresh: Callable[..., Path], quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = fresh(quick)
    assert_op_is_correct()
    # what a read-only mount reports, also for root
    monkeypatch.setattr(os, "access", lambda path, mode, ask=os.access: mode != os.W_OK and ask(path, mode))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    fresh("")
    assert_op_is_correct()
    assert isinstance(native.load(), native.Library)
    assert calls(tmp_path) == 2
    shutil.rmtree(cache)
    fresh(quick)
    assert_op_is_correct()
    (user_directory,) = (tmp_path / "temporary").iterdir()
    assert user_directory.stat().st_mode & 0o777 == 0o700
    assert (len(built(user_directory)), calls(tmp_path)) == (1, 4)


@needs_compiler
@pytest.mark.parametrize("home", ["/dev/null/nobody", ""])
def test_the_library_is_built_without_a_home_directory(
    home: str, fresh: Callable[..., Path], quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh(quick)
    monkeypatch.delenv("NASACT_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", home or str(tmp_path / "file"))
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    assert_op_is_correct()
    assert isinstance(native.load(), native.Library)
    assert calls(tmp_path) == 2


@needs_compiler
@pytest.mark.parametrize("damage", ["emptied", "truncated", "changed", "replaced"])
def test_a_damaged_library_is_built_again(damage: str, fresh: Callable[..., Path], quick: Path, tmp_path: Path) -> None:
    cache = fresh(quick)
    assert_op_is_correct()
    (library,) = built(cache)
    whole = library.read_bytes()
    library.unlink()  # not overwritten: this process has it mapped
    half = len(whole) // 2
    library.write_bytes(
        {
            "emptied": b"",
            "truncated": whole[:half],
            "changed": whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :],
            "replaced": b"something else",
        }[damage]
    )
    fresh(quick)
    assert_op_is_correct()
    assert isinstance(native.load(), native.Library)
    assert [path.read_bytes() for path in built(cache)] == [whole]
    assert calls(tmp_path) == 4


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process, whose compiler never returns, that builds in the cache of `fresh`."""
    compiler, number = script(tmp_path / "stuck", f'echo $$ >"{tmp_path}/pid"\nexec sleep 60'), tmp_path / "pid"
    code = f"import runpy; runpy.run_path({build.__file__!r})['build']()"  # which needs no torch
    environment = {**os.environ, "NASACT_CACHE_DIR": str(tmp_path / "cache"), "CXX": str(compiler)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL) as builder:
        wait_for(lambda: number.exists() and number.read_text())
        yield builder
        builder.kill()
        os.kill(int(number.read_text()), signal.SIGKILL)


@needs_compiler
def test_a_killed_builder_blocks_no_other_and_its_files_are_removed(
    stuck: subprocess.Popen[bytes], fresh: Callable[..., Path], quick: Path
) -> None:
    cache = fresh(quick)
    stuck.kill()
    stuck.wait()
    assert list(cache.glob("building-*"))
    started = time.monotonic()
    assert_op_is_correct()
    assert time.monotonic() - started < 20
    assert len(built(cache)) == 1


def test_waiting_too_long_for_another_builder_is_an_error(
    stuck: subprocess.Popen[bytes], fresh: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh(script(tmp_path / "unused", "exit 1"))
    monkeypatch.setattr(build, "SECONDS", 0.3)
    with pytest.raises(build.BuildError, match=r"another process has been building it for 0.3 seconds"):
        build.build()
    assert stuck.poll() is None


# ---- failures -------------------------------------------------------------------------------------------------------

COMPILERS = {
    "none": ("", "CXX is empty, which forbids a C++ compiler"),
    "missing": ("/no/such/compiler -O2", "'/no/such/compiler', does not exist"),
    "failing": ("echo one >&2; echo 'fatal error: no memory' >&2; exit 3", "fatal error: no memory (exit status 3)"),
    "silent": ("exit 1", "no error output (exit status 1)"),
    "idle": ("exit 0", "it wrote no library"),
    "garbage": ('while [ "$1" != -o ]; do shift; done; head -c 5000 /dev/zero >"$2"', "cannot compile it: "),
    "killed": ("kill -9 $$", "(exit status -9)"),
    "hanging": ("sleep 60 & wait", "took longer than 0.5 seconds"),
}


@pytest.mark.parametrize("compiler", COMPILERS)
def test_without_a_compiler_the_op_works_after_one_line_with_the_reason(
    compiler: str, fresh: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, reason = COMPILERS[compiler]
    monkeypatch.setattr(build, "SECONDS", 0.5 if compiler == "hanging" else 30)
    cache = fresh(body if compiler in ("none", "missing") else script(tmp_path / "compiler", body))
    started = time.monotonic()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for kernel, level in itertools.product(("auto", "table"), ("layer", "channel", "neuron")):
            assert_op_is_correct(kernel, level)
    assert time.monotonic() - started < 15
    (warning,) = caught
    assert warning.category is RuntimeWarning
    text = str(warning.message)
    assert text.startswith("nasact: the mixture op runs in plain torch, several times slower: ")
    assert reason in text
    assert "\n" not in text
    assert built(cache) == []
    choice = Bank(NAMES, Layout()).choose(CPU, F32)
    assert choice.kernel == "table"
    assert reason in choice.why
    assert "\n" not in choice.why


def test_a_compiler_that_hangs_is_killed_with_its_child_processes(
    fresh: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh(script(tmp_path / "hanging", f'sleep 60 &\necho $! >"{tmp_path}/child"\nwait'))
    monkeypatch.setattr(build, "SECONDS", 0.5)
    with pytest.raises(build.BuildError, match=r"took longer than 0.5 seconds"):
        build.build()
    child = Path("/proc") / (tmp_path / "child").read_text().strip() / "stat"
    wait_for(lambda: not child.exists() or child.read_text().split()[2] == "Z")


def test_the_compiler_may_have_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", f"{sys.executable} -O 'a b'")
    assert build.compiler() == [sys.executable, "-O", "a b"]
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(build.BuildError, match=r"there is no C\+\+ compiler"):
        build.compiler()


# ---- other builds ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def portable(tmp_path_factory: pytest.TempPathFactory) -> native.Library:
    """Compiled for any processor and without OpenMP; every warning is an error."""
    if isinstance(native.load(), str):
        pytest.skip(f"no native code here: {native.load()}")
    path = tmp_path_factory.mktemp("portable") / "portable.so"
    flags = ["-std=c++17", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror", "-DNASACT_PORTABLE"]
    command = [*build.compiler(), *flags, str(build.SOURCES / "mixture.cpp"), "-o", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return native.Library.open(path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("level", ["layer", "channel", "neuron"])
def test_portable_code_gives_the_same_numbers(
    portable: native.Library, level: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layout = Layout(level=level, shape={"layer": (), "channel": (3,), "neuron": (3, 11)}[level])
    bank = Bank(NAMES, layout, kernel="table")
    weights, tolerance = torch.rand(*layout.shape, len(NAMES)), 1e-6 if dtype == torch.float32 else 0.01
    for batch in (3, 200):  # few and many elements per row
        x = (12 * torch.randn(batch, 3, 11)).to(dtype)

        def run(x: Tensor = x) -> list[Tensor]:
            xs, ws = x.clone().requires_grad_(), weights.clone().requires_grad_()
            y = bank(xs, ws)
            first = torch.autograd.grad(y.float().square().sum(), (xs, ws), create_graph=True)
            second = torch.autograd.grad(sum(each.float().square().sum() for each in first), (xs, ws))
            return [y, *first, *second]

        expected = [each.detach().double() for each in run()]
        with monkeypatch.context() as patch:
            patch.setattr(native, "load", lambda: portable)
            assert distance(run(), expected) < tolerance


@needs_compiler
def test_the_usual_build_has_no_warning() -> None:
    flags = [*build._BASE, *build._FLAGS[0], "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    command = [*build.compiler(), *flags, str(build.SOURCES / "mixture.cpp")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
