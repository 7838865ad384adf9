"""What produced a result, so that it can be produced again: versions, commit, command, machine, threads, seed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

from nasact.version import __version__

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "optuna", "mlflow", "onnx", "onnxruntime")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where, with what and how a study was run. `git` is the working directory's commit, `-dirty` if it was changed."""

    seed: int
    versions: dict[str, str]
    git: str | None
    command: str
    platform: str
    cpus: int
    threads: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def tags(self) -> dict[str, str]:
        """The same as flat texts, for a tracker."""
        plain = {name: value for name, value in self.to_dict().items() if name != "versions" and value is not None}
        return {name: str(value) for name, value in plain.items()} | {
            f"version.{name}": version for name, version in self.versions.items()
        }


def origin(seed: int) -> Origin:
    """The origin of whatever this process computes."""
    import torch

    return Origin(
        seed=seed,
        # the build too: `+cpu` and `+cu130` do not compute the same bits
        versions=versions() | {"torch": torch.__version__},
        git=git_commit(),
        command=shlex.join(sys.argv),
        platform=platform.platform(),
        cpus=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
    )


def versions() -> dict[str, str]:
    """Python, nasact and the libraries that numbers depend on, as far as they are installed."""
    found = {"python": platform.python_version(), "nasact": __version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit of the working directory, `-dirty` where tracked files were changed; None outside of a repository."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return None
    return f"{commit}-dirty" if _git("status", "--porcelain", "--untracked-files=no") else commit


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
