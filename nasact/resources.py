"""Where the shipped YAML files are: inside the wheel, or at the top of a checkout that is installed in place."""

from __future__ import annotations

from pathlib import Path

from nasact.errors import NasactError

_PACKAGE = Path(__file__).resolve().parent


def shipped(folder: str) -> Path:
    """The folder of shipped files called `folder` (`studies` or `search_spaces`)."""
    for root in (_PACKAGE / "shipped", _PACKAGE.parent):
        if (root / folder).is_dir():
            return root / folder
    raise NasactError(f"the installation of nasact has lost its folder {folder!r}: reinstall it")


def shipped_names(folder: str) -> tuple[str, ...]:
    """Names of the YAML files in a shipped folder, sorted."""
    return tuple(sorted(path.stem for path in shipped(folder).glob("*.yaml")))
