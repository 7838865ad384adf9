"""What produced a result, so that it can be reproduced: versions, commit, command, machine, threads, seed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from dataclasses import asdict

from nasact.report.result import Provenance
from nasact.version import __version__

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "optuna", "mlflow", "onnx", "onnxruntime")


def collect_provenance(seed: int) -> Provenance:
    """The provenance of whatever this process computes; its `seconds` are not known yet."""
    import torch

    return Provenance(
        seed=seed,
        # torch's own version names the build: `+cpu` and `+cu130` do not compute the same bits
        versions=installed_versions() | {"torch": torch.__version__},
        git=git_commit(),
        command=shlex.join(sys.argv),
        platform=platform.platform(),
        cpus=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
    )


def provenance_tags(provenance: Provenance) -> dict[str, str]:
    """The provenance as flat texts for a tracker: each field by its name, each version as `version.<package>`."""
    plain = asdict(provenance)
    versions = plain.pop("versions")
    tags = {name: str(value) for name, value in plain.items() if value is not None}
    return tags | {f"version.{name}": version for name, version in versions.items()}


def installed_versions() -> dict[str, str]:
    """Python, nasact and those of PACKAGES (the libraries that decide numbers) that are installed."""
    found = {"python": platform.python_version(), "nasact": __version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """Commit of the working directory, with `-dirty` if tracked files were changed; None outside a repository."""
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
