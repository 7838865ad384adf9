"""Runs commands as a user does: in a new process, or, to save its start-up time, in this one."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

NASACT = Path(sys.executable).with_name("nasact")

TINY = """\
name: tiny
task: {dataset: digits, model: {name: mlp, hidden: [8]}, train_limit: 400, test_limit: 200}
search_space: [relu, tanh, sin]
search:
  strategy: {name: darts, lr: {low: 0.003, high: 0.1, log: true}}
  optimiser: {lr: 0.01}
  epochs: 6
  warmup: 1
retrain: {epochs: 8}
compare: {seeds: 2}
outer: {trials: 2, pruner: none}
"""


@dataclass(frozen=True)
class Ran:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


@pytest.fixture
def tiny() -> str:
    """The YAML of the finished study."""
    return TINY


@pytest.fixture(scope="session")
def command() -> Run:
    """Runs `nasact ARGUMENTS` in a new process."""

    def run(*arguments: object, cwd: Path, **options: Any) -> Ran:
        done = subprocess.run(
            [NASACT, *map(str, arguments)],
            cwd=cwd,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            **options,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs `nasact ARGUMENTS` by its entry point in this process, in `cwd` (default: the test's folder)."""
    from nasact.cli.main import main

    def run(*arguments: object, cwd: Path = tmp_path, columns: int = 100) -> Ran:
        monkeypatch.setattr(sys, "argv", ["nasact", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.chdir(cwd)
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Ran(code, out, err)

    return run


@pytest.fixture
def client_of() -> Callable[[Path], Any]:
    """Builds MLflow's client for the database that commands in a folder write to."""
    from nasact.tracking.mlflow import silence_mlflow

    def client(folder: Path) -> Any:
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        # Libraries that MLflow uses emit warnings at its import and at its first contact with a database.
        with silence_mlflow():
            import mlflow

            mlflow_client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
            mlflow_client.search_registered_models()
        return mlflow_client

    return client


@dataclass
class Running:
    """A running `nasact` process in a separate process group, as a shell starts it."""

    process: subprocess.Popen[str]

    def wait_for(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"the process ended too early: {self.process.communicate()}"
            assert time.monotonic() < deadline, f"the condition did not hold within {seconds} seconds"
            time.sleep(0.002)

    def signal(self, number: int) -> Ran:
        """Send a signal to the whole group, as a terminal does, and wait for the process to end."""
        os.killpg(self.process.pid, number)
        out, err = self.process.communicate(timeout=60)
        return Ran(self.process.returncode, out, err)


def _enable_ctrl_c() -> None:
    # The background jobs of a shell ignore SIGINT, and so do their child processes.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: object, cwd: Path) -> Running:
        process = subprocess.Popen(
            [NASACT, *map(str, arguments)],
            cwd=cwd,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=_enable_ctrl_c,
        )
        started.append(process)
        return Running(process)

    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.communicate()


@dataclass(frozen=True)
class Finished:
    """A study that ran to its end, with tracking: `first` is the run of `nasact search tiny.yaml --json`."""

    folder: Path
    first: Ran

    @property
    def document(self) -> dict[str, Any]:
        return self.first.document  # type: ignore[no-any-return]

    def copy(self, to: Path) -> Path:
        return Path(shutil.copytree(self.folder, to, ignore=shutil.ignore_patterns("*.db-*")))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, command: Run) -> Finished:
    """Run once, also if several workers run the tests."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, output = shared / "finished", shared / "finished.json"
    with (shared / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not output.exists():
            folder.mkdir()
            (folder / "tiny.yaml").write_text(TINY)
            ran = command("search", "tiny.yaml", "--json", "--workers", 1, cwd=folder)
            output.write_text(json.dumps([ran.code, ran.out, ran.err]))
        return Finished(folder, Ran(*json.loads(output.read_text())))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Writes a file with a text into the test's folder."""

    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write_file


def computed(document: dict[str, Any]) -> dict[str, Any]:
    """The part of a result that depends only on the study, not on the time, the directory or the machine."""
    trials = [
        {**trial, "metrics": {name: value for name, value in trial["metrics"].items() if "seconds" not in name}}
        for trial in document["trials"]["records"]
    ]
    return {
        "trials": trials,
        "variants": document["variants"],
        "genotype": document["genotype"],
        "accuracy": document["accuracy"],
        "gap": document["gap"],
        "contrasts": document["contrasts"],
    }


@pytest.fixture
def same() -> Callable[[dict[str, Any], dict[str, Any]], bool]:
    return lambda first, second: computed(first) == computed(second)
