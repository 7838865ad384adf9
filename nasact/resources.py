"""Finds the shipped YAML files: inside the wheel, or at the top of a checkout that is installed in place."""

from __future__ import annotations

from pathlib import Path

from nasact.errors import NasactError

_PACKAGE = Path(__file__).resolve().parent


def shipped(folder: str) -> Path:
    """The path of the shipped folder `folder` (`studies` or `search_spaces`)."""
    for root in (_PACKAGE / "shipped", _PACKAGE.parent):
        if (root / folder).is_dir():
            return root / folder
    raise NasactError(f"the installation of nasact has no folder {folder!r}: reinstall nasact")


def shipped_names(folder: str) -> tuple[str, ...]:
    """The names, without .yaml, of the files in a shipped folder, sorted."""
    return tuple(sorted(path.stem for path in shipped(folder).glob("*.yaml")))
