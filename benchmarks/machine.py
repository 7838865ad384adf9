"""The machine that measures: what the numbers depend on, and how busy it is with other work.

Knows the operating system and torch; knows no benchmark.
"""

from __future__ import annotations

import datetime
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path

import torch

QUIET = 10
"""Per cent of all cores that other processes may use without spoiling a measurement."""


def inspect_machine() -> dict[str, str]:
    """Return what the numbers depend on. Call it before measuring: the load must be that of other processes."""
    return {
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "compiler": _compiler(),
        "date": datetime.date.today().isoformat(),
        "load before": f"{os.getloadavg()[0]:.2f}",
        "busy before": f"{100 * _busy_share():.0f} %",
    }


def describe_machine(machine: dict[str, str]) -> str:
    """Two lines: date, processor and load; then the versions."""
    in_first_line = {"cpu", "cores", "threads", "date", "load before", "busy before"}
    versions = ", ".join(f"{key} {value}" for key, value in machine.items() if key not in in_first_line)
    disturbed = float(machine["busy before"].removesuffix(" %")) > QUIET
    return (
        f"{machine['date']}: {machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads; before: load "
        f"average {machine['load before']}, busy {machine['busy before']}"
        f"{': NOT A QUIET MACHINE' if disturbed else ''}\n{versions}"
    )


def _busy_share(seconds: float = 0.5) -> float:
    """The share of all cores that is busy during `seconds`; 0 where the system has no /proc/stat."""

    def ticks() -> tuple[int, int]:
        columns = [int(word) for word in Path("/proc/stat").read_text().partition("\n")[0].split()[1:]]
        return sum(columns), columns[3] + columns[4]

    try:
        (total, idle), _, (total_after, idle_after) = ticks(), time.sleep(seconds), ticks()
    except OSError:
        return 0.0
    return 1 - (idle_after - idle) / max(1, total_after - total)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(tuple(part.strip() for part in line.split(":", 1)) for line in lines if ":" in line)
    numbers = "".join(f", {key} {fields[key]}" for key in ("cpu family", "model") if key in fields)
    return fields.get("model name", platform.machine()) + numbers


def _compiler() -> str:
    program = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), None)
    if program is None:
        return "none"
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0]
