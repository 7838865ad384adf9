"""Help is fast: no slow library is imported before a command needs it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from nasact.cli.main import cli

HEAVY = {"torch", "mlflow", "optuna", "pydantic", "ray", "sklearn", "numpy", "matplotlib", "pandas", "rich", "yaml"}
COMMANDS = sorted(cli.commands)


def test_the_documented_commands_exist() -> None:
    assert set(COMMANDS) >= {"check", "export", "list", "search", "show", "ui"}


def test_help_takes_less_than_a_second(command, tmp_path: Path) -> None:
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        ran = command("--help", cwd=tmp_path)
        seconds.append(time.perf_counter() - started)
        assert ran.code == 0
        assert "Start with `nasact search digits`" in ran.out
        assert all(name in ran.out for name in COMMANDS)
    assert min(seconds) < 1.0


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)], ids=str)
def test_help_imports_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    script = (
        "import sys; from nasact.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as ended: code = ended.code\n"
        "print('CODE', code, *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    output, _, imported = done.stdout.rpartition("CODE")
    code, *modules = imported.split()
    assert code == "0"
    assert len(output) > 10
    assert HEAVY.isdisjoint(modules)
    assert done.stderr == ""


def test_help_line_of_every_command_is_not_truncated(command, tmp_path: Path) -> None:
    lines = command("--help", cwd=tmp_path).out.partition("Commands:")[2].strip().splitlines()
    assert len(lines) == len(COMMANDS)
    assert not any(line.endswith("...") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serach", "digits"], "No such command 'serach'. Did you mean 'search'?"),
        (["search"], "Missing argument 'STUDY'"),
        (["search", "digits", "--thread", "1"], "No such option '--thread'. Did you mean '--threads'?"),
        (["search", "digits", "--threads", "0"], "Invalid value for '--threads': 0 is not in the range x>=1."),
        (["list", "function"], "'function' is not one of"),
        (["export", "digits", "--format", "onx"], "'onx' is not one of 'onnx', 'pt2', 'safetensors'"),
        (["ui", "--port", "70000"], "Invalid value for '--port'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistyped_command_is_refused(here, arguments: list[str], message: str) -> None:
    ran = here(*arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert ran.err.splitlines()[-1].startswith("Error: ")
